"""Selection of the two images of one moving camera that make a pair, by the motion between them."""

from __future__ import annotations

from gsemsplat_ros.images.motion import Motion, TrackedView, small_gray
from gsemsplat_ros.images.view import Pair, View

STILL = 'the image stands still'


class KeyframeSelector:
    """Chooses the frames of one moving camera that make a pair with the keyframe before.

    A frame makes a pair when the image moved by at least `min_motion` and at most `max_motion`
    (fractions of the width) and at least `min_overlap` of the keyframe's features are still tracked;
    it is then the next keyframe. A still camera makes no pairs. The pair is dropped and the frame
    becomes the keyframe when too much moved or when the keyframe is older than `max_age_s`: then the
    two images may show two states of the world.

    pairs: number made. dropped: number not made although the camera moved. reason: why the last frame made a
    pair or none, in words. motion: last measured, or None.
    """

    def __init__(
        self,
        min_motion: float = 0.03,
        max_motion: float = 0.35,
        min_overlap: float = 0.4,
        max_age_s: float = 10.0,
    ):
        self._limits = min_motion, max_motion, min_overlap
        self._max_age_ns = round(max_age_s * 1e9)
        self._keyframe: TrackedView | None = None
        self.pairs = self.dropped = 0
        self.motion: Motion | None = None
        self.reason = 'no image yet'

    def offer(self, view: View) -> Pair | None:
        """A Pair of `view` (first, so the scene is in the newest frame) and the keyframe before, or None."""
        keyframe, self.motion = self._keyframe, None
        if keyframe is None:
            self._restart(view, 'first image: waiting for motion')
            return None
        if not keyframe.same_camera(view):
            self._restart(view, 'the camera changed: starting again')
            return None
        age_ns = view.stamp_ns - keyframe.view.stamp_ns
        if age_ns < 0:
            self._restart(view, 'time went backwards: starting again')
            return None
        motion = self.motion = keyframe.motion_to(small_gray(view.image))
        if motion is None:
            corners = len(keyframe.corners)
            self._restart(view, f'{corners} corners in the keyframe: too few to measure motion')
            return None
        min_motion, max_motion, min_overlap = self._limits
        if motion.flow > max_motion or motion.overlap < min_overlap:
            self.dropped += 1
            self._restart(view, 'too little of the keyframe is still seen: a new one')
            return None
        if age_ns > self._max_age_ns:
            if motion.flow >= min_motion:
                self.dropped += 1
            self._restart(view, 'the keyframe is too old: a new one')
            return None
        if motion.flow < min_motion:
            self.reason = STILL
            return None
        self._restart(view, 'pair')
        self.pairs += 1
        return Pair(first=view, second=keyframe.view)

    def forget(self) -> None:
        """Forget the keyframe: the next frame is one, and makes no pair."""
        self._keyframe = None

    def _restart(self, view: View, reason: str) -> None:
        self._keyframe, self.reason = TrackedView.of(view), reason
