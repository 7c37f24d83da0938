"""Videos: what is written comes back when it is played, whole or not at all; semantic colours stay put along
a path.
"""

import builtins
import math
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsemsplat_ros.flight.flight import BACKGROUND, fly, semantic_colors
from gsemsplat_ros.flight.paths import CameraPath, camera_path
from gsemsplat_ros.flight.video import VideoWriter, write_video
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.pictures.principal import LEVELS, Principal
from gsemsplat_ros.semantics.decoder import Decoders

av = pytest.importorskip('av')
CAMERA = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
COLOURS = ((200, 40, 40), (40, 160, 60), (30, 60, 200), (220, 220, 220), (16, 16, 16))


def plain(colour, height=48, width=64):
    return np.full((height, width, 3), colour, np.uint8)


def read(path):
    """The stream's facts and the frames, (N, H, W, 3) RGB."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        facts = {
            'decoders': stream.codec_context.name,
            'format': stream.pix_fmt,
            'fps': float(stream.average_rate),
        }
        return facts, np.array([frame.to_ndarray(format='rgb24') for frame in container.decode(stream)])


def boxes(data):
    """The names of an MP4 file's parts, in order."""
    names, start = [], 0
    while start < len(data):
        size, name = struct.unpack('>I4s', data[start : start + 8])
        names.append(name.decode())
        start += size
    return names


def test_frames_come_back(tmp_path):
    path = tmp_path / 'film.mp4'
    assert write_video(path, map(plain, COLOURS), 16.0) == len(COLOURS)
    facts, frames = read(path)
    assert facts == {'decoders': 'h264', 'format': 'yuv420p', 'fps': 16.0}, 'what every browser plays'
    assert frames.shape == (len(COLOURS), 48, 64, 3)
    for frame, colour in zip(frames, COLOURS):
        assert np.abs(frame.astype(int) - colour).mean() < 6, colour
    names = boxes(path.read_bytes())
    assert names.index('moov') < names.index('mdat'), 'a browser can begin before it has read the file'


def test_position_in_the_picture_is_kept(tmp_path):
    frame = plain(0)
    frame[:24, :32] = 255
    write_video(tmp_path / 'f.mp4', [frame] * 3, 10.0)
    seen = read(tmp_path / 'f.mp4')[1][2].mean(-1)
    assert seen[4:20, 4:28].min() > 230 and seen[28:, :].max() < 25 and seen[:, 36:].max() < 25


def test_odd_sides_lose_a_line(tmp_path):
    write_video(tmp_path / 'f.mp4', [plain((50, 100, 150), 47, 63)], 16.0)
    assert read(tmp_path / 'f.mp4')[1].shape == (1, 46, 62, 3)


def test_nothing_is_left_after_an_error(tmp_path):
    path = tmp_path / 'film.mp4'
    path.write_text('the old one')

    def frames():
        yield plain(20)
        raise RuntimeError('the renderer failed')

    with pytest.raises(RuntimeError, match='the renderer failed'):
        write_video(path, frames(), 16.0)
    with pytest.raises(ValueError, match='a video needs at least one frame'):
        write_video(path, [], 16.0)
    assert path.read_text() == 'the old one' and [p.name for p in tmp_path.iterdir()] == ['film.mp4']


def test_unfinished_video_is_not_there(tmp_path):
    with VideoWriter(tmp_path / 'film.mp4', 16.0) as video:
        video.add(plain(20))
        assert not (tmp_path / 'film.mp4').exists()
    assert (tmp_path / 'film.mp4').exists() and len(list(tmp_path.iterdir())) == 1


def test_missing_package_is_named(tmp_path, monkeypatch):
    found = builtins.__import__

    def without_av(name, *args, **kwargs):
        if name == 'av':
            raise ModuleNotFoundError("No module named 'av'", name='av')
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without_av)
    with pytest.raises(ValueError, match=r'^videos need the Python package av .*`pip install av`$'):
        write_video(tmp_path / 'film.mp4', [plain(0)], 16.0)
    assert list(tmp_path.iterdir()) == []


def test_principal_components_by_value():
    """Features that differ most along one axis, less along another: those axes in that order, and their
    spread as colour.
    """
    random = np.random.default_rng(0)
    features = random.normal(size=(5000, 8)) * 0.01 + 3.0
    features[:, 5] += random.uniform(-2, 2, 5000)
    features[:, 2] += random.uniform(-1, 1, 5000)
    features[:, 7] += random.uniform(-0.5, 0.5, 5000)
    principal = Principal.fit(features)
    assert np.abs(principal.components - np.eye(8)[[5, 2, 7]]).max() < 0.05
    colours = principal.colors(features @ principal.components.T)
    assert (
        colours.shape == (5000, 3)
        and colours.min() == np.float32(LEVELS[0])
        and colours.max() == np.float32(LEVELS[1])
    )
    assert np.corrcoef(colours[:, 0], features[:, 5])[0, 1] > 0.99
    assert np.allclose(colours.mean(0), np.mean(LEVELS), atol=0.02)


def test_principal_of_what_does_not_differ():
    assert np.isfinite(Principal.fit(np.ones((4, 6))).colors(np.ones((4, 3)))).all()
    assert Principal.fit(np.eye(2)).components.shape == (3, 2)


def wall(codes, n=20, distance=2.0):
    x, y = np.meshgrid(np.linspace(-0.8, 0.8, n), np.linspace(-0.6, 0.6, n))
    means = torch.tensor(np.stack([x, y, np.full_like(x, distance)], -1).reshape(-1, 3), dtype=torch.float32)
    colors = torch.zeros(n * n, 3)
    colors[:, 0] = 0.8
    return Gaussians(
        means,
        torch.tensor([[1.0, 0, 0, 0]]).repeat(n * n, 1),
        torch.full((n * n, 3), 0.06),
        torch.full((n * n,), 0.95),
        colors,
        codes(means),
        'camera',
    )


def two_things(means):
    """Codes that mean one thing on the left and another on the right."""
    random = np.random.default_rng(1)
    one, other = (torch.tensor(random.normal(size=32), dtype=torch.float32) for _ in range(2))
    return torch.where(means[:, :1] < 0, one, other)


def test_semantic_colours_are_one_for_each_meaning():
    torch.manual_seed(0)
    gaussians, decoders = wall(two_things), Decoders.small().requires_grad_(False)
    colours = semantic_colors(gaussians, decoders)
    left = gaussians.means[:, 0] < 0
    assert torch.allclose(colours[left], colours[left][:1].expand(int(left.sum()), 3), atol=1e-4)
    assert (colours[left][0] - colours[~left][0]).abs().max() > 0.5, (
        'and different ones for different meanings'
    )
    # plainly: unit features of the region-specific decoder, projected and stretched
    features = torch.nn.functional.normalize(
        decoders.decode(gaussians.codes[:, None])[0][:, 0], dim=-1
    ).numpy()
    principal = Principal.fit(features)
    assert np.abs(principal.colors(features @ principal.components.T) - colours.numpy()).max() < 1e-3
    assert semantic_colors(gaussians.select(slice(0, 0)), decoders).shape == (0, 3)


def test_decoders_that_look_at_neighbours_leave_the_codes():
    state = {f'language_decoder_{head}.0.weight': torch.rand(8, 16, 3, 3) for head in ('sam', 'patch')}
    gaussians = wall(two_things)
    colours = semantic_colors(gaussians, Decoders.from_state_dict(state))
    left = gaussians.means[:, 0] < 0
    assert torch.allclose(colours[left], colours[left][:1].expand(int(left.sum()), 3), atol=1e-4)
    assert (colours[left][0] - colours[~left][0]).abs().max() > 0.5


def test_flight_draws_both_pictures_and_does_not_flicker():
    torch.manual_seed(0)
    gaussians, decoders = wall(two_things), Decoders.small().requires_grad_(False)
    colours = semantic_colors(gaussians, decoders)
    path = camera_path('arc', 2.0)
    short = CameraPath(path.name, path.start_from_camera[::12])
    frames = list(fly(gaussians, colours, short, CAMERA))
    assert len(frames) == 4
    left, right = (
        (colours[side] * 255).mean(0).numpy()
        for side in (gaussians.means[:, 0] < 0, gaussians.means[:, 0] >= 0)
    )
    for rgb, semantics in frames:
        assert rgb.shape == semantics.shape == (48, 64, 3) and rgb.dtype == semantics.dtype == np.uint8
        assert np.abs(rgb[24, 32] - np.array([204, 0, 0])).max() <= 12, 'the scene in its own colours'
        assert np.abs(semantics[24, 18] - left).max() <= 12 and np.abs(semantics[24, 46] - right).max() <= 12
    corner = frames[1][1][0, 0] / 255  # from 12 degrees to the right the wall no longer fills the picture
    assert np.abs(corner - BACKGROUND).max() < 0.02


def test_published_path_brings_its_camera():
    gaussians = wall(lambda means: torch.zeros(len(means), 0), n=4)
    path = camera_path('published', 2.0)
    one = CameraPath(path.name, path.start_from_camera[:1], camera=path.camera)
    rgb, semantics = next(fly(gaussians, torch.zeros(16, 3), one, CAMERA))
    assert rgb.shape == semantics.shape == (512, 512, 3)


def test_yaw_moves_the_scene_across_the_picture():
    """Turning 10 degrees to the right moves what was ahead to the left by f tan(10 degrees)."""
    spot = wall(lambda means: torch.zeros(len(means), 0), n=2).select(slice(0, 1))
    spot = replace(spot, means=torch.tensor([[0.0, 0, 2.0]]))
    path = camera_path('published', 1.0)
    turned = CameraPath('turned', path.start_from_camera[13:14])  # 10 degrees
    rgb = next(fly(spot, torch.zeros(1, 3), turned, CAMERA))[0].astype(float)[..., 0] - 255 * BACKGROUND[0]
    rgb[rgb < 2] = 0
    column = (rgb.sum(0) * np.arange(64)).sum() / rgb.sum()
    assert column == pytest.approx(31.5 - 50 * math.tan(math.radians(10)), abs=0.3)
