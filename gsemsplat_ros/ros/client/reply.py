"""The answer in a response of /query: the only reader of that message."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Point, PoseStamped, Quaternion
from gsemsplat_msgs.srv import Query
from std_msgs.msg import Header

from gsemsplat_ros.ros.conversions import image_to_rgb
from gsemsplat_ros.ros.object_messages import object_of
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.words import LEFT_OUT, NOT_UNDERSTOOD

_NOTE = re.compile(f'^{NOT_UNDERSTOOD}.*|(?<=; ){LEFT_OUT}.*')  # the note at the end of a message


@dataclass(frozen=True, eq=False)
class NodeReply:
    """A node's answer, in the frame of `header` [m].

    picture (H, W, 3) uint8 RGB: relevancy over the newest image, None unless asked for. approach: where a
    robot stands before the best object; None where there is no such place. Its stamp is 0, which takes the
    newest TF; in the frame of a camera, which moves on, it is that of the image. message: the answer in
    words, and why there is no approach.
    """

    answer: Answer
    header: Header
    picture: np.ndarray | None
    approach: PoseStamped | None
    message: str


def reply_of(request: Query.Request, response: Query.Response) -> NodeReply:
    """The reply to `request`, also where the node did not understand it. Raises ValueError with the node's
    words when it could not answer.
    """
    note = _NOTE.search(response.message)
    if not response.success and not note:
        raise ValueError(response.message)
    answer = Answer(
        text=request.text,
        threshold=request.threshold or None,
        found=response.found,
        score=response.score,
        peak_point=_known(_xyz(response.peak)),
        peak_pixel=_known((response.peak_u, response.peak_v)),
        objects=tuple(object_of(message) for message in response.objects),
        note=note[0] if note else '',
    )
    approach = None
    if response.approach_found:
        approach = PoseStamped(pose=response.approach)
        approach.header.frame_id = response.header.frame_id
        if not _is_upright(response.approach.orientation):  # a camera's frame, which moves with the robot
            approach.header.stamp = response.header.stamp
    picture = image_to_rgb(response.image[0]) if response.image else None
    return NodeReply(answer, response.header, picture, approach, response.message)


def _is_upright(pose: Quaternion) -> bool:
    """Whether z is up in the frame of an approach pose, as in a map; in a camera's it is not (REP 103)."""
    return math.hypot(pose.x, pose.y) < 1e-3


def _known(numbers: tuple) -> tuple | None:
    """The numbers, or None where one of them is NaN (nothing there, REP 117)."""
    return numbers if all(map(math.isfinite, numbers)) else None


def _xyz(value: Point) -> tuple[float, float, float]:
    return value.x, value.y, value.z
