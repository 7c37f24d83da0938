"""What the core logs while a command runs is a note on stderr, and nothing remains of it afterwards."""

import logging

from gsemsplat_ros import cli
from gsemsplat_ros.terminal.console import Console
from gsemsplat_ros.terminal.log_notes import CORE, log_as_notes

log = logging.getLogger('gsemsplat_ros.datasets.sources')


def say():
    log.debug('a detail')
    log.info('computing %s', 'scene')
    log.warning('no GPU')


def test_records_are_notes_on_stderr(capsys):
    with log_as_notes(Console()):
        say()
    out, err = capsys.readouterr()
    assert (out, err) == ('', 'computing scene\nWARNING: no GPU\n')


def test_quiet_and_json_keep_what_they_promise(capsys):
    with log_as_notes(Console(quiet=True)):
        say()
    with log_as_notes(Console(as_json=True)):
        say()
    out, err = capsys.readouterr()
    assert (out, err) == ('', 'computing scene\nWARNING: no GPU\n')


def test_handlers_and_level_are_as_before(capsys):
    before = list(CORE.handlers), CORE.level
    with log_as_notes(Console()):
        assert len(CORE.handlers) == len(before[0]) + 1
    assert (list(CORE.handlers), CORE.level) == before


def test_every_command_shows_them(capsys, monkeypatch):
    from gsemsplat_ros.commands import weights

    def add_arguments(parser):
        parser.set_defaults(run=lambda args, console: say(), json=False, quiet=False)

    monkeypatch.setattr(weights, 'add_arguments', add_arguments)
    assert cli.main(['weights']) == 0
    assert capsys.readouterr().err == 'computing scene\nWARNING: no GPU\n'
