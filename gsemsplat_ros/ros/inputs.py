"""What comes in: subscriptions that only store and hand on, and sources that turn raw messages into a Pair.

The subscriptions run in the executor, the sources in the worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.keyframes import KeyframeSelector
from gsemsplat_ros.images.still import StillGate
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.ros.calibration import Rectifier, baseline_of, camera_of
from gsemsplat_ros.ros.conversions import compressed_to_rgb, image_to_rgb, quoted, stamp_ns
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.synchronize import StereoSync
from gsemsplat_ros.ros.transforms import Transforms

TOPICS = {
    'stereo': (('left/image_raw', 'left/camera_info'), ('right/image_raw', 'right/camera_info')),
    'sequential': (('image', 'camera_info'),),
}

JUMP_AHEAD_S = 10.0  # of a clock that was set, not of a bag that is played fast

Warn = Callable[[str], None]


def input_topics(node: Node, parameters: Parameters) -> list[tuple[str, str]]:
    """Resolved names of the image and camera_info topic of each camera; a remapped image topic keeps its
    transport.
    """
    ending = '/compressed' if parameters.image_transport == 'compressed' else ''
    return [
        (node.resolve_topic_name(image) + ending, node.resolve_topic_name(info))
        for image, info in TOPICS[parameters.mode]
    ]


@dataclass(frozen=True)
class Input:
    """Raw messages of one moment: an image a camera, and the newest camera_info of each (None: none came
    yet).
    """

    images: tuple[Image | CompressedImage, ...]
    infos: tuple[CameraInfo | None, ...]


class Heard:
    """A topic as received: resolved name, count, and the monotonic time of the last message [s] (None:
    never).

    jumps: how often its stamps went back, or ahead by JUMP_AHEAD_S more than the time that passed; jumped:
    the last such step in words, at the monotonic time jumped_s.
    """

    def __init__(self, topic: str, is_image: bool, required: bool):
        self.topic, self.is_image, self.required = topic, is_image, required
        self.count, self.jumps, self.jumped, self.jumped_s = 0, 0, '', float('-inf')
        self.last_s: float | None = None
        self._stamp_ns = 0

    def now(self, stamp: int) -> None:
        """A message with this stamp [ns] came."""
        now = time.monotonic()
        if self.last_s is not None:
            step = (stamp - self._stamp_ns) / 1e9
            if step < 0 or step - (now - self.last_s) > JUMP_AHEAD_S:
                self.jumps, self.jumped_s = self.jumps + 1, now
                self.jumped = f'went back by {-step:.3g} s' if step < 0 else f'jumped ahead by {step:.3g} s'
        self.count, self.last_s, self._stamp_ns = self.count + 1, now, stamp


class Subscriptions:
    """The input topics of one mode; `deliver(Input)` is called for every image or synchronised stereo
    pair.
    """

    def __init__(self, node: Node, parameters: Parameters, deliver: Callable[[Input], None]):
        self._node, self._deliver = node, deliver
        self._infos: list[CameraInfo | None] = [None] * len(TOPICS[parameters.mode])
        stereo = parameters.mode == 'stereo'
        self.sync = StereoSync(parameters.sync_slop_s, self._hand_on) if stereo else None
        self.heard: list[Heard] = []
        group = MutuallyExclusiveCallbackGroup()
        self._subscriptions = []
        compressed = parameters.image_transport == 'compressed'
        for side, (image, info) in enumerate(input_topics(node, parameters)):
            image_name, info_name = TOPICS[parameters.mode][
                side
            ]  # rclpy remaps what it is given: not what is resolved
            self._subscribe(
                CompressedImage if compressed else Image,
                image if compressed else image_name,
                Heard(image, is_image=True, required=True),
                lambda message, side=side: self._on_image(side, message),
                group,
            )
            self._subscribe(
                CameraInfo,
                info_name,
                Heard(info, is_image=False, required=stereo),
                lambda message, side=side: self._on_info(side, message),
                group,
            )

    def _subscribe(self, kind, topic: str, heard: Heard, callback, group) -> None:

        def received(message):
            heard.now(stamp_ns(message.header))
            callback(message)

        self.heard.append(heard)
        self._subscriptions.append(
            self._node.create_subscription(
                kind,
                topic,
                received,
                copy(qos_profile_sensor_data),  # rclpy writes overrides into the profile it is given
                callback_group=group,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        )

    def _on_image(self, side: int, message: Image | CompressedImage) -> None:
        if self.sync:
            self.sync.add(side, message)
        else:
            self._hand_on(message)

    def _on_info(self, side: int, message: CameraInfo) -> None:
        self._infos[side] = message

    def _hand_on(self, *images: Image | CompressedImage) -> None:
        self._deliver(Input(images, tuple(self._infos)))

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)


class _Lens:
    """One camera: its message to a View, rectified where asked for. `topics`: resolved names of image and
    info.

    complaints: what is doubtful about the last image, though it is used.
    """

    def __init__(
        self, topics: tuple[str, str], rectified: bool, warn: Warn, transforms: Transforms | None = None
    ):
        self._image_topic, self._info_topic = topics
        self._rectified, self._warn, self._transforms = rectified, warn, transforms
        self._rectify = Rectifier()
        self.complaints: list[str] = []

    def view(self, message: Image | CompressedImage, info: CameraInfo | None, needs_camera: bool) -> View:
        """Raises ValueError that names the topic and says what is wrong with the image or its camera_info."""
        self.complaints = []
        try:
            pixels = image_to_rgb(message) if isinstance(message, Image) else compressed_to_rgb(message)
        except ValueError as error:
            raise ValueError(f'{self._image_topic}: {error}') from None
        frame = message.header.frame_id
        camera = self._camera(frame, pixels.shape, info, needs_camera or not self._rectified)
        if camera and not self._rectified:
            pixels = self._rectify(pixels, info, self._info_topic)
        for complaint in self.complaints:
            self._warn(complaint)
        return View(pixels, camera, frame, stamp_ns(message.header))

    def placed(self, view: View) -> View:
        """The view with the place where its camera stood, as TF says; waits for it for a moment."""
        if self._transforms is None:
            return view
        return replace(view, map_from_camera=self._transforms.map_from(view.frame, view.stamp_ns))

    def _camera(self, frame: str, shape: tuple, info: CameraInfo | None, required: bool) -> Camera | None:
        if info is None and required:
            raise ValueError(
                f'no camera_info on {self._info_topic} yet: nothing can be done with '
                f'{self._image_topic} before; is it published and remapped?'
            )
        if info is None or not (required or info.k[0]):
            return None
        if info.header.frame_id != frame:
            self.complaints.append(
                f'{self._image_topic} is in frame {quoted(frame)} but {self._info_topic} in '
                f'{quoted(info.header.frame_id)}: is it the camera_info of another camera? Going on '
                "with the image's"
            )
        if self._rectified and any(info.d):
            # a hint for the log alone: image_proc sends the lens's distortion along with rectified images too
            self._warn(
                f'{self._info_topic} has a distortion and rectified is true: if {self._image_topic} carries '
                'raw images, set rectified: false'
            )
        return camera_of(info, shape[1], shape[0], self._info_topic)


class StereoSource:
    """Left and right messages to a Pair with its baseline [m], while there is anything new to see."""

    def __init__(
        self, parameters: Parameters, topics: list[tuple[str, str]], warn: Warn, transforms: Transforms | None
    ):
        self._lenses = [
            _Lens(names, parameters.rectified, warn, where)
            for names, where in zip(topics, (transforms, None))
        ]
        self._info_topics, self._tied = [info for _, info in topics], transforms is not None
        self._gate = StillGate(parameters.keyframe_min_motion)

    @property
    def state(self) -> dict[str, object]:
        """Why the last pair was used or not, what was measured, and how many were not."""
        gate = self._gate
        return {
            'keyframes': gate.reason,
            'stereo pairs that showed nothing new': gate.skipped,
            'motion since the last scene [fraction of the width]': gate.motion.flow
            if gate.motion
            else 'none',
            'changed since the last scene [fraction]': gate.changed,
        }

    @property
    def complaints(self) -> list[str]:
        """What is doubtful about the last images, though they are used."""
        return [complaint for lens in self._lenses for complaint in lens.complaints]

    def pair(self, raw: Input) -> Pair | None:
        """None while there is nothing new to see. Raises ValueError with the reason when the messages make no
        rectified stereo pair."""
        views = []
        for side, (lens, image, info) in enumerate(zip(self._lenses, raw.images, raw.infos)):
            views.append(lens.view(image, info, needs_camera=True))
            if side == 0 and not self._gate.is_new(views[0]):
                return None
        left, right = views
        if left.image.shape != right.image.shape:
            raise ValueError(
                'left images have {1}x{0} px and right ones {3}x{2} px: wanted one size'.format(
                    *left.image.shape[:2], *right.image.shape[:2]
                )
            )
        return Pair(self._lenses[0].placed(left), right, baseline_of(raw.infos[1], self._info_topics[1]))

    def built(self, pair: Pair) -> None:
        """A scene was made of `pair`: what shows the same makes none, unless TF did not say where this one
        was seen.
        """
        if not self._tied or pair.first.map_from_camera is not None:
            self._gate.keep(pair.first)

    def forget(self) -> None:
        """The next pair is used, whatever it shows."""
        self._gate.forget()


class SequentialSource:
    """The messages of one moving camera to a Pair of keyframes, the newest one first."""

    def __init__(
        self, parameters: Parameters, topics: list[tuple[str, str]], warn: Warn, transforms: Transforms | None
    ):
        self._lens, self._warn = _Lens(topics[0], parameters.rectified, warn, transforms), warn
        self._selector = KeyframeSelector(
            parameters.keyframe_min_motion,
            parameters.keyframe_max_motion,
            parameters.keyframe_min_overlap,
            parameters.keyframe_max_age_s,
        )

    @property
    def complaints(self) -> list[str]:
        """What is doubtful about the last image, though it is used."""
        return self._lens.complaints

    @property
    def state(self) -> dict[str, object]:
        """Why the last image made a pair or none, what was measured, and how many pairs were made and
        dropped.
        """
        selector, motion = self._selector, self._selector.motion
        return {
            'keyframes': selector.reason,
            'keyframe pairs': selector.pairs,
            'keyframe pairs dropped': selector.dropped,
            'motion since the keyframe [fraction of the width]': motion.flow if motion else 'none',
            'overlap with the keyframe [fraction]': motion.overlap if motion else 'none',
        }

    def pair(self, raw: Input) -> Pair | None:
        """None while there is nothing new to see. Raises ValueError when the message is no usable image."""
        dropped = self._selector.dropped
        pair = self._selector.offer(
            self._lens.placed(self._lens.view(raw.images[0], raw.infos[0], needs_camera=False))
        )
        if self._selector.dropped > dropped:
            self._warn(f'pair dropped: {self._selector.reason}')
        return pair

    def built(self, pair: Pair) -> None:
        """The newest image of a pair is the next keyframe, whatever becomes of it."""

    def forget(self) -> None:
        """Two images are needed for a scene: the camera must move."""


def make_source(
    parameters: Parameters, topics: list[tuple[str, str]], warn: Warn, transforms: Transforms | None = None
) -> StereoSource | SequentialSource:
    """The source of the mode; `topics`: resolved (image, camera_info) names of each camera, for messages;
    with `transforms` the views know where their camera stood in the map."""
    return (StereoSource if parameters.mode == 'stereo' else SequentialSource)(
        parameters, topics, warn, transforms
    )
