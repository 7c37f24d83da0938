"""From raw messages to a Pair, in the worker: images are decoded, rectified, placed and selected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.detail import check_image
from gsemsplat_ros.images.keyframes import KeyframeSelector
from gsemsplat_ros.images.levels import Levels
from gsemsplat_ros.images.still import StillGate
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.ros.calibration import Rectifier, baseline_of, camera_of
from gsemsplat_ros.ros.conversions import compressed_to_rgb, image_to_rgb, stamp_ns
from gsemsplat_ros.ros.frame_checks import axes_doubt, frame_of
from gsemsplat_ros.ros.inputs import Input
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.tf_listener import TfListener

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Selection:
    """What a source last thought of its images.

    reason: why they made a pair or none. motion: median, since the last scene (stereo) or keyframe
    (sequential), a fraction of the image width, None where not measured. complaints: what is doubtful about
    them, though they are used. Stereo: changed, the part of the image that changed since the last scene;
    still, how many pairs showed nothing new. Sequential: overlap, the part of the keyframe that is still
    seen, None where not measured; pairs and dropped, of keyframes so far.
    """

    reason: str = 'no image yet'
    motion: float | None = None
    complaints: tuple[str, ...] = ()
    changed: float = 0.0
    still: int = 0
    overlap: float | None = None
    pairs: int = 0
    dropped: int = 0


class Source(Protocol):
    """Where pairs come from. `selection` is replaced, never changed, so any thread may read it; all else
    belongs to the worker.
    """

    selection: Selection

    def pair(self, raw: Input) -> Pair | None:
        """None if there is nothing new to see. Raises ValueError for messages that make no pair."""

    def built(self, pair: Pair) -> None:
        """A scene was made of `pair`."""

    def forget(self) -> None:
        """The current view is to be used again, even if nothing moved. Any thread may call."""


class _Lens:
    """One camera: converts its messages to Views, rectified on request. `topics`: resolved (image, info).

    levels: shared by the cameras of a stereo pair. complaints: what is doubtful about the last image, though
    it is used, and about the frame that TF placed.
    """

    def __init__(
        self,
        topics: tuple[str, str],
        parameters: Parameters,
        levels: Levels,
        warn: Warn,
        tf: TfListener | None = None,
    ):
        self._image_topic, self._info_topic = topics
        self._rectified, self._base_frame = parameters.rectified, parameters.base_frame
        self._levels, self._warn, self._tf = levels, warn, tf
        self._rectify = Rectifier()
        self._of_image = self._of_frame = ''

    @property
    def complaints(self) -> list[str]:
        return list(filter(None, (self._of_image, self._of_frame)))

    def view(self, message: Image | CompressedImage, info: CameraInfo | None, needs_camera: bool) -> View:
        """Raises ValueError that names the topic and says what is wrong with the image or its camera_info."""
        self._of_image = ''
        try:
            to_rgb = image_to_rgb if isinstance(message, Image) else compressed_to_rgb
            pixels = to_rgb(message, self._levels)
            check_image(pixels)
        except ValueError as error:
            raise ValueError(f'{self._image_topic}: {error}') from None
        frame, self._of_image = frame_of(
            message.header.frame_id,
            info.header.frame_id if info else None,
            self._image_topic,
            self._info_topic,
        )
        if self._of_image:
            self._warn(self._of_image)
        camera = self._camera(pixels.shape, info, needs_camera or not self._rectified)
        if camera and not self._rectified:
            pixels = self._rectify(pixels, info, self._info_topic)
        return View(pixels, camera, frame, stamp_ns(message.header))

    def placed(self, view: View) -> View:
        """The view with its camera's pose from TF, for which it waits a moment."""
        if self._tf is None:
            return view
        pose = self._tf.map_from(view.frame, view.stamp_ns)
        if pose is not None:
            self._of_frame = axes_doubt(view, pose, self._image_topic, self._tf, self._base_frame)
            if self._of_frame:
                self._warn(self._of_frame)
        return replace(view, map_from_camera=pose)

    def _camera(self, shape: tuple, info: CameraInfo | None, required: bool) -> Camera | None:
        if info is None and required:
            raise ValueError(
                f'no camera_info on {self._info_topic} yet: nothing can be done with '
                f'{self._image_topic} before; is it published and remapped?'
            )
        if info is None or not (required or info.k[0] or info.p[0]):
            return None
        if self._rectified and any(info.d):
            # a hint for the log alone: image_proc sends the lens's distortion along with rectified images too
            self._warn(
                f'{self._info_topic} has a distortion and rectified is true: if {self._image_topic} carries '
                'raw images, set rectified: false'
            )
        return camera_of(info, shape[1], shape[0], self._info_topic)


def single_view(
    message: Image | CompressedImage, info: CameraInfo, parameters: Parameters, warn: Warn
) -> View:
    """One image of a service as a View. Raises ValueError for what is wrong with it or its camera_info."""
    return _Lens(('the image', 'its camera_info'), parameters, Levels(), warn).view(message, info, True)


class StereoSource:
    """Left and right messages to a Pair with its baseline [m], while there is anything new to see."""

    def __init__(
        self, parameters: Parameters, topics: list[tuple[str, str]], warn: Warn, tf: TfListener | None
    ):
        self._levels = Levels()
        self._lenses = [
            _Lens(names, parameters, self._levels, warn, where) for names, where in zip(topics, (tf, None))
        ]
        self._info_topics, self._tied = [info for _, info in topics], tf is not None
        self._gate = StillGate(parameters.keyframe_min_motion)
        self.selection = Selection()

    def pair(self, raw: Input) -> Pair | None:
        """None while there is nothing new to see. Raises ValueError with the reason when the messages make no
        rectified stereo pair."""
        try:
            return self._pair(raw)
        finally:
            gate = self._gate
            self.selection = Selection(
                gate.reason,
                gate.motion.flow if gate.motion else None,
                tuple(complaint for lens in self._lenses for complaint in lens.complaints),
                changed=gate.changed,
                still=gate.skipped,
            )

    def _pair(self, raw: Input) -> Pair | None:
        left = self._view(0, raw)
        if not self._gate.is_new(left):
            return None
        white, right = self._levels.white, self._view(1, raw)
        if self._levels.white > white:  # the right image fills more bits than any before: the left one again
            left = self._view(0, raw)
        if left.image.shape != right.image.shape:
            raise ValueError(
                'left images have {1}x{0} px and right ones {3}x{2} px: wanted one size'.format(
                    *left.image.shape[:2], *right.image.shape[:2]
                )
            )
        infos = raw.infos
        assert infos[0] is not None and infos[1] is not None  # the views needed them
        return Pair(
            self._lenses[0].placed(left), right, baseline_of(infos[0], infos[1], self._info_topics[1])
        )

    def _view(self, side: int, raw: Input) -> View:
        return self._lenses[side].view(raw.images[side], raw.infos[side], needs_camera=True)

    def built(self, pair: Pair) -> None:
        """A scene was made of `pair`: the same view makes no other, unless TF did not place it."""
        if not self._tied or pair.first.map_from_camera is not None:
            self._gate.keep(pair.first)

    def forget(self) -> None:
        """The next pair is used, whatever it shows."""
        self._gate.forget()


class SequentialSource:
    """The messages of one moving camera to a Pair of keyframes, the newest one first."""

    def __init__(
        self, parameters: Parameters, topics: list[tuple[str, str]], warn: Warn, tf: TfListener | None
    ):
        self._levels, self._warn = Levels(), warn
        self._lens = _Lens(topics[0], parameters, self._levels, warn, tf)
        self._selector = KeyframeSelector(
            parameters.keyframe_min_motion,
            parameters.keyframe_max_motion,
            parameters.keyframe_min_overlap,
            parameters.keyframe_max_age_s,
        )
        self.selection = Selection()

    def pair(self, raw: Input) -> Pair | None:
        """None while there is nothing new to see. Raises ValueError when the message is no usable image."""
        dropped = self._selector.dropped
        try:
            white = self._levels.white
            view = self._lens.view(raw.images[0], raw.infos[0], needs_camera=False)
            if self._levels.white > white:  # the keyframe was scaled otherwise
                self._selector.forget()
            return self._selector.offer(self._lens.placed(view))
        finally:
            selector, motion = self._selector, self._selector.motion
            self.selection = Selection(
                selector.reason,
                motion.flow if motion else None,
                tuple(self._lens.complaints),
                overlap=motion.overlap if motion else None,
                pairs=selector.pairs,
                dropped=selector.dropped,
            )
            if selector.dropped > dropped:
                self._warn(f'pair dropped: {selector.reason}')

    def built(self, pair: Pair) -> None:
        """The newest image of a pair is the next keyframe, whatever becomes of it."""

    def forget(self) -> None:
        """Two images are needed for a scene: the camera must move."""


def make_source(
    parameters: Parameters, topics: list[tuple[str, str]], warn: Warn, tf: TfListener | None = None
) -> Source:
    """The source of the mode; `topics`: resolved (image, camera_info) names of each camera, for messages;
    with `tf` the views know where their camera stood in the map."""
    kind = StereoSource if parameters.mode == 'stereo' else SequentialSource
    return kind(parameters, topics, warn, tf)
