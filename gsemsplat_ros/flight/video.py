"""Videos for browsers and phones: H.264 in MP4, through PyAV (`pip install av`), which includes FFmpeg."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType

import numpy as np

from gsemsplat_ros.files import write_whole

QUALITY = 21  # x264's constant rate factor: lower is better and larger
BT709 = 1  # FFmpeg's number of ITU-R BT.709, for primaries, transfer and matrix


def load_av() -> ModuleType:
    """PyAV. Raises ValueError in one line where it is not installed; call it before long work."""
    try:
        import av
    except ImportError as error:
        raise ValueError(f'videos need the Python package av ({error}): run `pip install av`') from None
    return av


class VideoWriter:
    """Writes frames to the file `path`, which appears whole at the end of the `with`, or not after an error.

    Frames are (H, W, 3) uint8 RGB, all of one size; an odd side loses its last line of pixels, as the format
    needs even ones. fps: frames a second. Raises ValueError without PyAV, or when there was no frame.
    """

    def __init__(self, path: str | Path, fps: float):
        self.path, self.fps = Path(path), fps
        self.frames = 0

    def __enter__(self) -> VideoWriter:
        self._av = load_av()
        with ExitStack() as opened:
            part = opened.enter_context(write_whole(self.path))
            # faststart: the table of frames comes first, so that a browser starts before it has it all
            options = {'movflags': '+faststart'}
            container = self._av.open(str(part), 'w', format='mp4', options=options)
            self._container = opened.enter_context(container)
            opened.push(self._finish)
            self._opened = opened.pop_all()
        return self

    def add(self, frame: np.ndarray) -> None:
        """The next frame."""
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3, (frame.shape, frame.dtype)
        height, width = (side - side % 2 for side in frame.shape[:2])
        if not self.frames:
            self._open(width, height)
        assert (self._stream.width, self._stream.height) == (width, height), (self._stream.width, width)
        picture = self._av.VideoFrame.from_ndarray(
            np.ascontiguousarray(frame[:height, :width]), format='rgb24'
        )
        picture = picture.reformat(format='yuv420p', dst_colorspace='ITU709')
        picture.pts = self.frames
        self._container.mux(self._stream.encode(picture))
        self.frames += 1

    def _open(self, width: int, height: int) -> None:
        self._stream = self._container.add_stream('h264', rate=Fraction(self.fps).limit_denominator(1001))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, 'yuv420p'
        self._stream.options = {'crf': str(QUALITY)}
        context = self._stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = BT709

    def _finish(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None and not self.frames:
            raise ValueError(f'{self.path}: a video needs at least one frame')
        if kind is None:
            self._container.mux(self._stream.encode(None))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, traceback)


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write the frames as VideoWriter does; returns how many there were."""
    with VideoWriter(path, fps) as video:
        for frame in frames:
            video.add(frame)
    return video.frames
