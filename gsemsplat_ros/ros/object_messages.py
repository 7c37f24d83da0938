"""Objects to messages: with what the map remembers of them, as detections and as markers."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence
from typing import Any

from geometry_msgs.msg import Pose, Vector3
from gsemsplat_msgs.msg import Object as ObjectMessage
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

try:
    from vision_msgs import msg as vision_msgs  # comes with ROS; it is no package of the Python package index
except ImportError:
    vision_msgs = None

from gsemsplat_ros.ros.conversions import time_message, time_ns
from gsemsplat_ros.ros.messages import finite, point, vector
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.object_history import History, State
from gsemsplat_ros.semantics.objects import Object


def object_message(thing: Object, label: str) -> ObjectMessage:
    """An object with its history; label: the text that found it."""
    message = ObjectMessage(
        label=label,
        score=finite(thing.score)[0],
        pose=Pose(position=point(thing.center)),
        size=vector(thing.size),
    )
    if was := thing.history:
        message.id, message.state, message.times_seen = was.id, int(was.state), was.times_seen
        message.texts = [text for text, _ in was.texts]
        message.scores = finite(*(score for _, score in was.texts))
        message.first_seen, message.last_seen = (
            time_message(was.first_seen_ns),
            time_message(was.last_seen_ns),
        )
        message.gone_since = time_message(was.gone_ns)
    return message


def object_of(message: ObjectMessage) -> Object:
    """The inverse of `object_message`, without the label."""
    history = None
    if message.id:
        first, last, gone = (
            time_ns(time) for time in (message.first_seen, message.last_seen, message.gone_since)
        )
        texts = tuple(zip(message.texts, message.scores))
        history = History(message.id, State(message.state), texts, first, last, message.times_seen, gone)
    at, size = message.pose.position, message.size
    return Object((at.x, at.y, at.z), (size.x, size.y, size.z), message.score, history)


def object_messages(answer: Answer) -> list[ObjectMessage]:
    """The objects of one answer, best first."""
    return [object_message(thing, answer.text) for thing in answer.objects]


def object_detections(answers: Sequence[tuple[Answer, Header]], header: Header) -> Any:
    """vision_msgs/Detection3DArray: the objects of each (answer, header), one that several answers have once.

    class_id: the phrase, that of each answer; id: that of the map, else phrase and rank.
    """
    detections: dict[str, Any] = {}
    for answer, own in answers:
        for rank, thing in enumerate(object_messages(answer)):
            result = vision_msgs.ObjectHypothesisWithPose()
            result.hypothesis.class_id, result.hypothesis.score = thing.label, thing.score
            result.pose.pose = thing.pose
            box = vision_msgs.BoundingBox3D(center=thing.pose, size=thing.size)
            name = str(thing.id or f'{thing.label} {rank}')
            detections.setdefault(name, vision_msgs.Detection3D(header=own, bbox=box, id=name))
            detections[name].results = [*detections[name].results, result]
    return vision_msgs.Detection3DArray(header=header, detections=list(detections.values()))


def object_markers(answers: Sequence[Answer], header: Header) -> MarkerArray:
    """A box and a label with its id for each object, coloured by text; they replace all previous markers."""
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for answer in answers:
        hue = zlib.crc32(answer.text.encode()) / 2**32  # the same in every node and at every start
        r, g, b = colorsys.hsv_to_rgb(hue, 0.8, 1.0)
        for i, thing in enumerate(answer.objects):
            box = Marker(
                header=header,
                ns=answer.text,
                id=2 * i,
                type=Marker.CUBE,
                action=Marker.ADD,
                pose=Pose(position=point(thing.center)),
                color=ColorRGBA(r=r, g=g, b=b, a=0.35),
                scale=vector(thing.size),
            )
            number = f' #{thing.id}' if thing.id else ''
            label = Marker(
                header=header,
                ns=answer.text,
                id=2 * i + 1,
                type=Marker.TEXT_VIEW_FACING,
                action=Marker.ADD,
                pose=Pose(position=point(thing.center)),
                scale=Vector3(z=max(0.05, float(min(thing.size)) / 4)),
                color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0),
                text=f'{answer.text}{number} {thing.score:.2f}',
            )
            markers += [box, label]
    return MarkerArray(markers=markers)
