"""What commands say on a terminal and what into a pipe: alignment, colours, quiet, progress."""

import io
import logging
import os
import re
import subprocess
import sys

import pytest

from gsemsplat_ros.cli import main
from gsemsplat_ros.terminal import log_notes
from gsemsplat_ros.terminal.console import Console, printable, width

BOLD = re.compile(r'\033\[[0-9;]*m')


class Terminal(io.StringIO):
    """Takes what is printed, and is a terminal."""

    def isatty(self):
        return True


def become_terminal(monkeypatch):
    """stdout and stderr as terminals that can show colours; called in the test itself, for pytest sets both
    before it.
    """
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, 'stdout', out)
    monkeypatch.setattr(sys, 'stderr', err)
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.delenv('NO_COLOR', raising=False)
    return out, err


@pytest.mark.parametrize(
    'text, columns',
    [
        ('chair', 5),
        ('', 0),
        ('椅子', 4),
        ('한국어', 6),
        ('é', 1),
        ('e\u0301', 1),
        ('ﾊﾝ', 2),
        ('ＡＢ', 4),
        ('naïve', 5),
        ('العربية', 7),
        ('a\u200db', 2),
        ('📷', 2),
    ],
)
def test_width_is_that_of_a_terminal(text, columns):
    assert width(text) == columns


def test_columns_are_aligned_for_every_script(capsys):
    words = 'chair', '椅子', '한국어 의자', 'cafe\u0301', 'ﾊﾝｶﾞｰ', 'ＴＶ', 'кресло'
    Console().table([(word, 0.5 * i, True) for i, word in enumerate(words)], ('query', 'score', 'found'))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(words)
    ends = {width(line[: re.search(r'(score|\d)(?=  (found|yes))', line).end()]) for line in lines}
    assert len(ends) == 1, 'the numbers of all lines end in one column'
    begins = {width(line[: line.index('found' if i == 0 else 'yes')]) for i, line in enumerate(lines)}
    assert len(begins) == 1, 'the words of all lines begin in one column'


def test_numbers_stand_to_the_right(capsys):
    Console().table([('a', 1, 2.0), ('b', 100, None)], ('name', 'count', 'mean'))
    assert capsys.readouterr().out == 'name  count  mean\na         1  2\nb       100  -\n', (
        'None makes a column of words'
    )
    Console().table([(1.23456789e-7, 12345678)])
    assert capsys.readouterr().out == '1.235e-07  12345678\n'


def test_long_words_go_on_below_themselves(monkeypatch, capsys):
    rows = [('data', 'rooms of furniture models under free licences'), ('none', ''), ('steps', 12)]
    out, _ = become_terminal(monkeypatch)
    monkeypatch.setenv('COLUMNS', '31')
    Console().table(rows)
    assert out.getvalue() == (
        'data   rooms of furniture\n       models under free\n       licences\nnone\nsteps  12\n'
    )
    out, _ = become_terminal(monkeypatch)
    monkeypatch.setenv('COLUMNS', '20')
    Console().table(rows[:1])
    assert out.getvalue().count('\n') == 1, 'too narrow to wrap'


def test_long_words_stay_in_one_line_in_a_pipe(monkeypatch, capsys):
    monkeypatch.setenv('COLUMNS', '31')
    Console().table([('data', 'rooms of furniture models under free licences')])
    assert capsys.readouterr().out == 'data  rooms of furniture models under free licences\n'


def test_nothing_steers_the_terminal(capsys):
    Console().table([('\033[31mred\033[0m', 'a\nb\tc\x07\u202ed')])
    out = capsys.readouterr().out
    assert out == '\ufffd[31mred\ufffd[0m  a b c\ufffd\ufffdd\n'
    assert printable('ordinary – ‘text’ ½ 椅子 👩\u200d🔬') == 'ordinary – ‘text’ ½ 椅子 👩\u200d🔬'


def test_notes_results_and_errors_steer_no_terminal(capsys, monkeypatch):
    evil = 'a\x1b]0;title\x07 \x9b2J\x1b[1mb'
    monkeypatch.setattr('gsemsplat_ros.cli.run', raising(ValueError(evil)))
    assert main([]) == 2
    console = Console()
    console.note(evil)
    console.warn(evil)
    console.say(evil)
    log_notes.NoteHandler(console).emit(logging.makeLogRecord({'msg': evil, 'levelno': logging.INFO}))
    said = capsys.readouterr()
    for line in (said.out + said.err).splitlines():
        assert line.isprintable() and ']0;title' in line
    assert (said.out + said.err).count('\n') == 5


def raising(error):
    """A function that raises `error` whatever it is given."""

    def work(*arguments):
        raise error

    return work


def test_colours_only_where_a_terminal_shows_them(monkeypatch):
    def header(**environment):
        out, _ = become_terminal(monkeypatch)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        Console().table([('a',)], ('name',))
        return out.getvalue()

    assert header() == '\033[1mname\033[0m\na\n'
    assert header(NO_COLOR='') == '\033[1mname\033[0m\na\n', 'an empty NO_COLOR says nothing (no-color.org)'
    assert header(NO_COLOR='1') == 'name\na\n'
    assert header(TERM='dumb') == 'name\na\n'


def test_no_colours_in_a_pipe(capsys):
    Console().table([('a', 1)], ('name', 'value'))
    assert not BOLD.search(capsys.readouterr().out)


def test_quiet_says_results_and_warnings_only(monkeypatch):
    out, err = become_terminal(monkeypatch)
    console = Console(quiet=True)
    console.note('starting')
    console.warn('open to the network')
    with console.progress(3, 'room', 'drawing') as bar:
        bar.update(3)
    console.say('result')
    console.table([('a', 1)])
    assert err.getvalue() == 'open to the network\n' and out.getvalue() == 'result\na  1\n'


def test_progress_shows_rate_and_time_on_a_terminal(monkeypatch):
    out, err = become_terminal(monkeypatch)
    with Console().progress(4, 'frame', 'film') as bar:
        bar.update(1)
        bar.refresh()
        shown = err.getvalue().split('\r')[-1]
        bar.set_description('film')
    assert re.search(r'film: +25%\|.+\| 1/4 \[\d\d:\d\d<.+(frame/s|s/frame)\]', shown)
    assert out.getvalue() == '' and not err.getvalue().endswith('\n'), (
        'the bar goes away when the work is done'
    )


def test_no_progress_in_a_pipe(capsys):
    with Console().progress(4, 'frame', 'film') as bar:
        bar.update(4)
    assert capsys.readouterr().err == ''


def test_json_is_alone_on_stdout(capsys):
    console = Console(as_json=True)
    console.say('words')
    console.table([('a', 1)], ('name', 'value'))
    console.note('a note')
    console.result({'a': float('inf'), 'text': '\033[31m'})
    out, err = capsys.readouterr()
    assert out == '{"a": null, "text": "\\u001b[31m"}\n' and err == 'a note\n'


@pytest.mark.parametrize('command', [['--version'], ['weights', 'info']], ids=' '.join)
def test_commands_write_no_escapes_into_a_pipe(command):
    """The process as a shell script sees it."""
    environment = {**os.environ, 'TERM': 'xterm-256color', 'COLUMNS': '80'}
    environment.pop('NO_COLOR', None)
    done = subprocess.run(
        [sys.executable, '-m', 'gsemsplat_ros.cli', *command],
        capture_output=True,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 0 and done.stdout and b'\033' not in done.stdout + done.stderr
