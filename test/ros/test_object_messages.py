"""Objects to messages, with what the map remembers of them, and back."""

from dataclasses import replace

from geometry_msgs.msg import Point
from gsemsplat_msgs.msg import Object as ObjectMessage

from gsemsplat_ros.ros import object_messages
from gsemsplat_ros.ros.conversions import make_header
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.object_history import History, State
from gsemsplat_ros.semantics.objects import Object

HEADER = make_header('left_optical', 12_345_678_901)


def answer(text, *objects):
    return Answer(text, 0.5, True, 0.9, None, None, tuple(Object(*values) for values in objects))


def test_objects_become_boxes_and_labels():
    answers = [
        answer('chair', ((1, 2, 3), (0.5, 1, 0.4), 0.9), ((0, 0, 2), (1, 1, 1), 0.7)),
        answer('door', ((4, 0, 5), (1, 2, 0.1), 0.8)),
        answer('nothing'),
    ]
    markers = object_messages.object_markers(answers, HEADER).markers
    assert markers[0].action == 3  # DELETEALL first: old objects go
    assert [(m.ns, m.id, m.type) for m in markers[1:]] == [
        ('chair', 0, 1),
        ('chair', 1, 9),
        ('chair', 2, 1),
        ('chair', 3, 9),
        ('door', 0, 1),
        ('door', 1, 9),
    ]
    box, label = markers[1:3]
    assert box.pose.position == Point(x=1.0, y=2.0, z=3.0) and box.pose.orientation.w == 1.0
    assert (box.scale.x, box.scale.y, box.scale.z) == (0.5, 1.0, 0.4)
    assert label.text == 'chair 0.90' and all(m.header == HEADER for m in markers)
    assert markers[1].color != markers[5].color
    alone = object_messages.object_markers(answers[1:2], HEADER).markers
    assert alone[1].color == markers[5].color  # wherever it stands among others
    described = object_messages.object_messages(answers[0])
    assert [(o.label, round(o.score, 3), o.pose.position.z, o.size.y) for o in described] == [
        ('chair', 0.9, 3.0, 1.0),
        ('chair', 0.7, 2.0, 1.0),
    ]


def test_what_the_map_remembers_of_an_object_is_in_its_message():
    texts = (('office chair', 0.75), ('chair', 0.5))
    was = History(7, State.GONE, texts, 1_500_000_000, 2_250_000_000, 12, 4_000_000_000)
    thing = Object((1.0, 2.0, 3.0), (0.5, 1.0, 0.25), 0.5, was)
    described = object_messages.object_message(thing, 'chair')
    assert (described.id, described.state, described.times_seen) == (7, ObjectMessage.GONE, 12)
    assert (described.label, list(described.texts), list(described.scores)) == (
        'chair',
        ['office chair', 'chair'],
        [0.75, 0.5],
    )
    stamps = described.first_seen, described.last_seen, described.gone_since
    assert [(stamp.sec, stamp.nanosec) for stamp in stamps] == [(1, 500_000_000), (2, 250_000_000), (4, 0)]
    assert object_messages.object_of(described) == thing
    assert {name: int(state) for name, state in State.__members__.items()} == {
        name: getattr(ObjectMessage, name) for name in ('THERE', 'NOT_SEEN_LATELY', 'GONE')
    }
    markers = object_messages.object_markers([replace(answer('chair'), objects=(thing,))], HEADER).markers
    assert markers[2].text == 'chair #7 0.50'
    of_a_scene = object_messages.object_message(replace(thing, history=None), 'chair')
    assert (of_a_scene.id, of_a_scene.state) == (0, ObjectMessage.UNKNOWN)
    assert object_messages.object_of(of_a_scene) == replace(thing, history=None)
