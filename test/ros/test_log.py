"""The core's log on the node's."""

import logging

import rclpy.logging

from gsemsplat_ros.ros.log import NodeLog, core_log_to


class Recorder:
    """In the place of a logger of ROS."""

    def __init__(self):
        self.lines = []

    def __getattr__(self, level):
        return lambda message: self.lines.append((level, message))


def test_each_level_goes_to_its_own():
    recorder, log = Recorder(), logging.getLogger('gsemsplat_ros.some.module')
    with core_log_to(NodeLog(recorder)):
        log.debug('%d codes', 32)
        log.info('loaded')
        log.warning('slow')
        log.error('lost')
        try:
            raise RuntimeError('a fault')
        except RuntimeError:
            log.exception('failed')
    log.warning('no longer')
    assert recorder.lines[:4] == [
        ('debug', '32 codes'),
        ('info', 'loaded'),
        ('warning', 'slow'),
        ('error', 'lost'),
    ]
    level, text = recorder.lines[4]
    assert level == 'error' and text.startswith('failed\n    Traceback') and text.endswith('a fault')
    assert len(recorder.lines) == 5


def test_a_logger_of_ros_takes_all_levels_from_one_module(capfd):
    log = logging.getLogger('gsemsplat_ros.some.module')
    with core_log_to(NodeLog(rclpy.logging.get_logger('gsemsplat'))):
        for text in ('first', 'second'):
            log.debug('a detail')
            log.info(text)
            log.warning('slow')
            log.error('lost')
    said = capfd.readouterr().err
    for words in ('[INFO]', '[WARN]', '[ERROR]', '[gsemsplat]: first', '[gsemsplat]: second'):
        assert words in said
    assert said.count('lost') == 2 and 'a detail' not in said


def test_names_forge_no_record_and_reach_no_terminal_raw():
    recorder = Recorder()
    NodeLog(recorder).warning(
        'no frame a\n[INFO] [1.0] [gsemsplat]: all is well\x1b[2J\x1b]0;title\x07\ud800'
    )
    ((level, text),) = recorder.lines
    first, *more = text.split('\n')
    assert level == 'warning' and first == 'no frame a'
    assert len(more) == 1 and more[0].startswith('    [INFO]') and text.replace('\n', '').isprintable()
