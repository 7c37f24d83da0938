"""What the core logs reaches the node's logger with its severity, as long as the node is there."""

import logging

import rclpy.logging

from gsemsplat_ros.ros.log_forwarding import CORE, LogForwarding

log = logging.getLogger('gsemsplat_ros.scene.map')


class Logger:
    """Keeps (severity, text)."""

    def __init__(self):
        self.said = []

    def info(self, text):
        self.said.append(('info', text))

    def warning(self, text):
        self.said.append(('warning', text))

    def error(self, text):
        self.said.append(('error', text))


def say():
    log.debug('a detail')
    log.info('%d voxels', 3)
    log.warning('full')
    log.error('broken')


def test_records_keep_their_severity_until_it_is_closed():
    logger, level = Logger(), CORE.level
    forwarding = LogForwarding(logger)
    say()
    forwarding.close()
    assert logger.said == [('info', '3 voxels'), ('warning', 'full'), ('error', 'broken')]
    log.error('after the node')
    assert len(logger.said) == 3 and CORE.level == level and forwarding not in CORE.handlers


def test_an_exception_brings_its_traceback():
    logger = Logger()
    forwarding = LogForwarding(logger)
    try:
        raise ValueError('no depth')
    except ValueError:
        log.exception('a frame failed')
    forwarding.close()
    [(severity, text)] = logger.said
    assert (
        severity == 'error' and text.startswith('a frame failed\n') and text.endswith('ValueError: no depth')
    )


def test_the_logger_of_rclpy_takes_all_severities(capfd):
    forwarding = LogForwarding(rclpy.logging.get_logger('gsemsplat'))
    say()
    say()
    forwarding.close()
    err = capfd.readouterr().err
    for words in ('[INFO]', '[WARN]', '[ERROR]', '[gsemsplat]: 3 voxels', '[gsemsplat]: broken'):
        assert words in err
    assert err.count('full') == 2 and 'a detail' not in err
