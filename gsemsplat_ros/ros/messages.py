"""Scenes and answers to messages: relevancy, points and poses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Transform, TransformStamped, Vector3
from gsemsplat_msgs.msg import Relevancy as RelevancyMessage
from std_msgs.msg import Header

from gsemsplat_ros.gaussians.rotations import rotation_to_quat
from gsemsplat_ros.ros.conversions import make_header
from gsemsplat_ros.scene.approach import Approach
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import Answer


def finite(*numbers: float) -> tuple[float, ...]:
    """The numbers, as they may leave the node. Raises ValueError where one is NaN or infinite: in a message
    NaN says that nothing is there (REP 117), and only where the message's own comment says so.
    """
    if not all(map(math.isfinite, numbers)):
        raise ValueError(
            f'({", ".join(f"{number:g}" for number in numbers)}) was to be published: wanted finite numbers; '
            'are the weights or the calibration damaged?'
        )
    return tuple(map(float, numbers))


def transform_message(parent_from_child: np.ndarray, child: str, header: Header) -> TransformStamped:
    """`parent_from_child` (4, 4) rigid, translation in metres; `header`: of the parent."""
    return TransformStamped(
        header=header,
        child_frame_id=child,
        transform=Transform(
            translation=vector(parent_from_child[:3, 3]), rotation=quaternion(parent_from_child[:3, :3])
        ),
    )


def scene_header(scene: Scene) -> Header:
    """Frame of the Gaussians, stamp of the newest keyframe."""
    return make_header(scene.gaussians.frame, scene.keyframe.stamp_ns)


def relevancy_message(answer: Answer, header: Header) -> RelevancyMessage:
    """The answer to one query."""
    u, v = pixel(answer.peak_pixel)
    (score,) = finite(answer.score)
    return RelevancyMessage(
        header=header,
        text=answer.text,
        found=answer.found,
        peak_u=u,
        peak_v=v,
        score=score,
        peak=point(answer.peak_point if header.frame_id else None),
    )


def pixel(uv: tuple[float, float] | None) -> tuple[float, float]:
    """A pixel as two fields of a message; None (nothing there) as NaN (REP 117)."""
    u, v = (math.nan, math.nan) if uv is None else finite(*uv)
    return u, v


def point(xyz: Sequence[float] | np.ndarray | None) -> Point:
    """Three numbers as a Point; None (nothing there) as NaN (REP 117)."""
    x, y, z = (math.nan,) * 3 if xyz is None else finite(*xyz)
    return Point(x=x, y=y, z=z)


def vector(xyz: Sequence[float] | np.ndarray) -> Vector3:
    """Three numbers as a Vector3."""
    x, y, z = finite(*xyz)
    return Vector3(x=x, y=y, z=z)


def approach_message(approach: Approach) -> Pose:
    """Where to stand."""
    w, x, y, z = finite(*approach.quat)
    return Pose(position=point(approach.position), orientation=Quaternion(x=x, y=y, z=z, w=w))


def quaternion(rotation: np.ndarray) -> Quaternion:
    """Rotation matrix (3, 3) as a unit Quaternion message (x, y, z, w)."""
    w, x, y, z = finite(*rotation_to_quat(rotation).tolist())
    return Quaternion(x=x, y=y, z=z, w=w)


def pose_message(first_from_second: np.ndarray, header: Header) -> PoseStamped:
    """Pose of the second camera in the first's frame; `first_from_second` (4, 4) rigid, translation [m]."""
    return PoseStamped(header=header, pose=pose_of(first_from_second))


def pose_of(a_from_b: np.ndarray) -> Pose:
    """Pose of b in a; `a_from_b` (4, 4) rigid, translation [m]."""
    return Pose(position=point(a_from_b[:3, 3]), orientation=quaternion(a_from_b[:3, :3]))
