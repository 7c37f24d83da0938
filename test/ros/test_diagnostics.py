"""What /diagnostics says of a Status."""

import math

import pytest
from gsemsplat_msgs.msg import InputTopic, Latency, Status

from gsemsplat_ros.ros.diagnostics import ERROR, OK, STALE, WARN, inputs_line, report, scene_line


def status(**changes):
    """Of an active stereo node with one scene."""
    fields = dict(
        configured=True,
        active=True,
        stereo=True,
        slop=0.02,
        stereo_pairs=4,
        received=[5, 7],
        skew=math.nan,
        gap=math.nan,
        motion=math.nan,
        scenes=1,
        latencies=[Latency(stage='total', seconds=0.25)],
        inputs=[InputTopic(name='/left', is_image=True, required=True, count=5, age=0.5)],
        map_frame='map',
    )
    return Status(**{**fields, **changes})


def test_parts_and_their_names():
    message = report('/n', Status())
    assert [part.name for part in message.status] == ['/n: inputs', '/n: scene']
    assert {part.level for part in message.status} == {STALE}
    message = report('/n', status(tf_frame='odom'))
    assert [part.name for part in message.status] == [
        f'/n: {name}' for name in ('inputs', 'scene', 'map', 'transforms')
    ]
    values = {value.key: value.value for value in message.status[1].values}
    assert (values['total [ms]'], values['last error']) == ('250', 'none')


def test_a_good_pair_of_topics():
    line = inputs_line(status(skew=0.001, gap=-0.003))
    assert (line.level, line.message) == (OK, 'receiving')
    assert line.values['left, right without partner'] == '1, 3'
    assert line.values['skew of the last pair [ms]'] == pytest.approx(1)
    assert line.values['motion since the last scene [fraction of the width]'] == 'none'


@pytest.mark.parametrize(
    'topic, level, message',
    [
        (dict(age=math.nan), ERROR, 'nothing received yet on /left'),
        (dict(age=2.5), WARN, 'late: /left (2.5 s)'),
        (dict(age=0.1, jump='went back by 3 s'), WARN, 'the stamps of /left went back by 3 s'),
    ],
)
def test_a_bad_topic_is_named(topic, level, message):
    line = inputs_line(status(inputs=[InputTopic(name='/left', is_image=True, required=True, **topic)]))
    assert (line.level, line.message) == (level, message)


def test_stamps_that_never_match_are_named():
    line = inputs_line(status(gap=0.05, unmatched=[5, 6]))
    assert line.level == WARN and 'differ by 50.0 ms, sync_slop_s allows 20 ms' in line.message


def test_a_scene_is_ready_once_it_has_its_latencies():
    assert scene_line(status(scenes=0, latencies=[])).message == 'no scene yet'
    line = scene_line(status(scale=0.5, inliers=70, points=90))
    assert (line.message, line.values['scale'], line.values['inliers']) == ('scene ready', 0.5, '70 of 90')
    assert scene_line(status(last_error='too dark')).message == 'too dark'
