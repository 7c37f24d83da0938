"""Frames of images that would lead astray, each said in one line."""

from __future__ import annotations

import numpy as np

from gsemsplat_ros.images.view import View
from gsemsplat_ros.ros.conversions import quoted
from gsemsplat_ros.ros.tf_listener import TfListener

ALONG = 0.7  # cosine of the angle within which an axis points up, or ahead: 45 degrees
EMPTY = 'frame_id is empty: set it in the driver; '


def frame_of(image: str, info: str | None, image_topic: str, info_topic: str) -> tuple[str, str]:
    """The frame of an image, and what is doubtful about it or ''. image, info: frame_id of its message, and
    of its camera_info (None: there is none)."""
    if not image and info:
        return info, f'{image_topic}: {EMPTY}going on with that of {info_topic}, {quoted(info)}'
    if not image:
        return '', f'{image_topic}: {EMPTY}without it no cloud, pose, object or approach is published'
    if info == '':
        return image, f'{info_topic}: {EMPTY}going on with that of {image_topic}, {quoted(image)}'
    if info is not None and info != image:
        return image, (
            f'{image_topic} is in frame {quoted(image)} but {info_topic} in {quoted(info)}: is it the '
            "camera_info of another camera? Going on with the image's"
        )
    return image, ''


def axes_doubt(
    view: View, map_from_camera: np.ndarray, image_topic: str, tf: TfListener, base_frame: str
) -> str:
    """What is doubtful about the axes of a view's frame, or '': it looks like that of a camera's body (x
    ahead, z up; REP 103). One that is called optical must look ahead with x, too: else the camera looks up.
    """
    if map_from_camera[2, 2] < ALONG:
        return ''
    if 'optical' in view.frame:
        base_from_camera, _ = tf.lookup(base_frame, view.frame, view.stamp_ns)
        if base_from_camera is None or base_from_camera[0, 0] < ALONG:
            return ''
    return (
        f'{image_topic} is in frame {quoted(view.frame)}, whose z axis points up in {quoted(tf.map_frame)}: '
        'what is ahead would lie above; an optical frame has z ahead and y down: name it in the driver, or '
        'mend its transform. Right only for a camera that looks up'
    )
