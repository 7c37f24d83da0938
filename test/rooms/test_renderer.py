"""The drawn rooms: pixels where the pinhole model puts them, true depth, and the same room in every view."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed')

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.rooms.cameras import look
from gsemsplat_ros.rooms.furnish import sample_room
from gsemsplat_ros.rooms.layout import MIRROR_GLOW, Light, Photographic, Quad, Room, kind_of, overlap
from gsemsplat_ros.rooms.renderer import RoomRenderer

H, W = 96, 128
CAMERA = Camera(W, H, 110.0, 112.0, 61.3, 49.8)
K = CAMERA.K


@pytest.fixture(scope='module')
def renderer(furniture):
    try:
        return RoomRenderer(furniture, H, W)
    except ValueError as error:
        pytest.skip(str(error))


def bare_room(*quads, lights=(), ambient=1.0):
    """A room of nothing but the given quads, white."""
    white = np.full((256, 256, 3), 255, np.uint8)
    return Room(
        np.full(3, 10.0),
        ['void', 'a', 'b', 'c'],
        4,
        [],
        list(quads),
        list(lights),
        ambient,
        [white],
        np.zeros((0, 5)),
    )


def facing(u0, u1, v0, v1, z, instance=1, glow=1.0):
    """A quad parallel to the image of a camera at the origin, covering [u0, u1] x [v0, v1] px."""
    x0, x1 = ((u - K[0, 2]) / K[0, 0] * z for u in (u0, u1))
    y0, y1 = ((v - K[1, 2]) / K[1, 1] * z for v in (v0, v1))
    return Quad(
        instance,
        *(np.array(a, float) for a in ((x0, y0, z), (x1 - x0, 0, 0), (0, y1 - y0, 0))),
        0,
        (1.0, 1.0),
        glow,
    )


def points(depth, camera=K):
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]]
    return (
        np.stack([(u - camera[0, 2]) / camera[0, 0], (v - camera[1, 2]) / camera[1, 1], np.ones(u.shape)], -1)
        * depth[..., None]
    )


def test_a_known_square_covers_exactly_its_pixels(renderer):
    renderer.load(bare_room(facing(19.6, 40.4, 9.6, 30.4, 2.5), facing(70.6, 80.4, 50.6, 70.4, 4.0, 2)))
    frame = renderer.render(CAMERA, np.eye(4))
    expected = np.zeros((H, W), np.int16)
    expected[10:31, 20:41] = 1  # half a pixel off would lose a row or column on one side
    expected[51:71, 71:81] = 2
    np.testing.assert_array_equal(frame.instance, expected)
    np.testing.assert_allclose(frame.depth, np.choose(expected, [0, 2.5, 4.0]), rtol=1e-6)


def test_the_colour_lies_where_the_depth_does(renderer):
    # Its edges lie between the samples of the twice finer grid, where the rasteriser has nothing to decide.
    renderer.load(bare_room(facing(49.25, 54.75, 29.25, 36.75, 3.0)))
    weight = renderer.render(CAMERA, np.eye(4)).rgb[..., 0].astype(float)
    v, u = np.mgrid[:H, :W]
    assert (weight * u).sum() / weight.sum() == pytest.approx(52.0, abs=0.02)
    assert (weight * v).sum() / weight.sum() == pytest.approx(33.0, abs=0.02)


def test_depth_of_a_floor_is_analytic(renderer):
    floor = Quad(1, np.array([-50.0, -50.0, 0]), np.array([100.0, 0, 0]), np.array([0, 100.0, 0]), 0)
    renderer.load(bare_room(floor))
    frame = renderer.render(
        CAMERA, look(np.array([0.3, -0.2, 1.1]), np.array([0.3, 5.0, 1.1]))
    )  # looks along the floor
    rows = np.arange(H)
    z = 1.1 * K[1, 1] / np.maximum(rows - K[1, 2], 1e-3)
    near = (z > 0.1) & (z < 15)
    np.testing.assert_allclose(frame.depth[near], np.repeat(z[near, None], W, 1), rtol=2e-4)
    assert near.sum() > 35 and not frame.depth[rows < K[1, 2] - 1].any()


def test_a_lamp_casts_a_shadow(renderer):
    table = Quad(2, np.array([4.5, 4.5, 1.0]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 0)
    floor = Quad(1, np.zeros(3), np.array([10.0, 0, 0]), np.array([0, 10.0, 0]), 0)
    lamp = Light(np.array([5.0, 5.0, 2.5]), np.full(3, 0.5))
    pose = look(np.array([5.0, 1.5, 0.5]), np.array([5.0, 5.0, 0.3]))
    renderer.load(bare_room(floor, table, lights=[lamp], ambient=0.2))
    shadowed = renderer.render(CAMERA, pose).rgb
    renderer.load(bare_room(floor, lights=[lamp], ambient=0.2))
    bare = renderer.render(CAMERA, pose)
    below = np.abs(points(bare.depth) @ pose[:3, :3].T + pose[:3, 3] - [5, 5, 0]).max(-1) < 0.4
    aside = np.abs(points(bare.depth) @ pose[:3, :3].T + pose[:3, 3] - [6.7, 5, 0]).max(-1) < 0.3
    below &= bare.instance == 1
    aside &= bare.instance == 1
    assert below.sum() > 20 and aside.sum() > 20
    assert shadowed[below].mean() < 0.6 * bare.rgb[below].mean()
    assert shadowed[aside].mean() == pytest.approx(bare.rgb[aside].mean(), rel=0.05)


def test_the_look_changes_colours_alone(renderer, furniture):
    room = sample_room(furniture, np.random.default_rng(3))
    pose = look(room.size * [0.15, 0.15, 0.6], room.size * [0.5, 0.5, 0.3])
    frames = []
    for looks in (room.photographic, None):
        renderer.load(replace(room, photographic=looks))
        frames.append(renderer.render(CAMERA, pose))
        depth, instance = renderer.survey(CAMERA, pose)  # but for the rounding at edges
        assert (np.abs(depth - frames[-1].depth) < 1e-3).mean() > 0.998
        assert (instance == frames[-1].instance).mean() > 0.998
    np.testing.assert_allclose(frames[0].depth, frames[1].depth, rtol=1e-6)
    np.testing.assert_array_equal(frames[0].instance, frames[1].instance)
    assert np.abs(frames[0].rgb.astype(int) - frames[1].rgb).mean() > 5


def photographic_room(*quads, lights=(), sky=0.0, exposure=1.0):
    looks = Photographic(np.full(3, sky), np.full(3, sky / 2), exposure, [])
    return replace(bare_room(*quads, lights=lights), photographic=looks)


def displayed(linear):
    """The tone curve and gamma of photographic rooms."""
    x = 0.6 * linear
    return 255 * np.sqrt(np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1))


def test_a_photographic_surface_has_the_light_of_its_lamp(renderer):
    floor = Quad(1, np.array([2.0, 2, 0]), np.array([6.0, 0, 0]), np.array([0, 6.0, 0]), 0)
    pose = look(np.array([5.0, 3.9, 3.0]), np.array([5.0, 5.0, 0]))
    renderer.load(photographic_room(floor, sky=0.4))
    rgb = renderer.render(CAMERA, pose).rgb
    assert rgb[H // 2, W // 2, 1] == pytest.approx(displayed(0.4), abs=2)  # the sky alone, seen from above
    for power, radius in ((2.0, 0.0), (2.0, 1.0), (0.5, 0.0)):
        lamp = Light(np.array([5.0, 5.0, 2.0]), np.full(3, power), radius=radius)
        renderer.load(photographic_room(floor, lights=[lamp]))
        frame = renderer.render(CAMERA, pose)
        at = points(frame.depth) @ pose[:3, :3].T + pose[:3, 3]
        d2 = ((at - lamp.position) ** 2).sum(-1)
        light = power * (2.0 / np.sqrt(d2)) / (0.5 + radius**2 + d2)
        assert np.abs(frame.rgb[..., 1] - displayed(light))[1:-1, 1:-1].max() < 3


def test_a_window_lights_what_is_before_it_and_its_view_is_overexposed(renderer):
    floor = Quad(1, np.array([2.0, 2, 0]), np.array([6.0, 0, 0]), np.array([0, 6.0, 0]), 0)
    window = Light(np.array([5.0, 5.0, 1.0]), np.full(3, 4.0), normal=np.array([0, 1.0, 0]), radius=0.5)
    pose = look(np.array([5.01, 5.0, 5.0]), np.array([5.0, 5.0, 0]))
    renderer.load(photographic_room(floor, lights=[window]))
    frame = renderer.render(CAMERA, pose)
    to = points(frame.depth) @ pose[:3, :3].T + pose[:3, 3] - window.position
    d2 = (to**2).sum(-1)
    light = 4 * np.maximum(to[..., 1], 0) / d2 / (0.5 + 0.5**2 + d2)  # both cosines: y / d and 1 / d
    off = np.abs(frame.rgb[..., 1] - displayed(light))[1:-1, 1:-1]
    assert np.quantile(off, 0.95) < 3 and not frame.rgb[to[..., 1] < -0.1].any() and frame.rgb.max() > 100
    for exposure in (0.3, 1.0, 3.0):
        renderer.load(photographic_room(facing(19.6, 40.4, 9.6, 30.4, 2.5), exposure=exposure))
        assert renderer.render(CAMERA, np.eye(4)).rgb[20, 30, 1] == pytest.approx(displayed(4.0), abs=2)


def test_a_mirror_shows_the_room(renderer):
    """A mirror in the wall y = 0 shows what is at larger x on that side, and the right way up."""
    black, white = (np.full((256, 256, 3), value, np.uint8) for value in (0, 255))
    at, along = np.array([4.5, 0.01, 2.0]), np.array([1.0, 0, 0])
    mirror = Quad(1, at, along, np.array([0, 0, -1.0]), 0, glow=MIRROR_GLOW)
    lamp = Quad(2, np.array([5.5, 2.0, 1.8]), 0.6 * along, np.array([0, 0, -0.4]), 1, glow=1.0)
    room = photographic_room(mirror, lamp)
    renderer.load(replace(room, names=['void', 'mirror', 'lamp'], textures=[black, white]))
    frame = renderer.render(CAMERA, look(np.array([5.0, 1.2, 1.5]), np.array([5.0, 0.0, 1.5])))
    lit = (frame.rgb[..., 0] > 100) & (frame.instance == 1)
    v, u = np.nonzero(lit)
    assert lit.sum() > 50 and not (frame.instance == 2).any()
    assert u.mean() < CAMERA.cx - 5  # the camera looks along -y: larger x is on its left
    assert v.mean() < CAMERA.cy  # the lamp hangs a little higher than the camera


def test_two_views_of_a_room_agree(renderer, furniture):
    """Depth and instances of the second view, warped into the first, on what both see."""
    good = seen = same = 0
    for seed in range(4):
        room = sample_room(furniture, np.random.default_rng(seed))
        renderer.load(room)
        middle = room.size * [0.5, 0.5, 0.3]
        poses = [look(room.size * [0.12, y, 0.6], middle) for y in (0.12, 0.2)]
        first, second = (renderer.render(CAMERA, pose) for pose in poses)
        first_from_second = np.linalg.inv(poses[0]) @ poses[1]
        moved = points(second.depth) @ first_from_second[:3, :3].T + first_from_second[:3, 3]
        z = np.maximum(moved[..., 2], 1e-3)
        u, v = (np.rint(K[i, i] * moved[..., i] / z + K[i, 2]).astype(int) for i in (0, 1))
        inside = (moved[..., 2] > 0.1) & (u >= 1) & (v >= 1) & (u < W - 1) & (v < H - 1) & (second.depth > 0)
        # Where the surface is smooth: a rounded pixel of an edge belongs to something else.
        window = np.stack([first.depth[v[inside] + b, u[inside] + a] for a in (-1, 0, 1) for b in (-1, 0, 1)])
        ids = np.stack([first.instance[v[inside] + b, u[inside] + a] for a in (-1, 0, 1) for b in (-1, 0, 1)])
        mutual = (ids == second.instance[inside]).all(0)
        error = (
            np.where(
                (window.min(0) <= z[inside]) & (z[inside] <= window.max(0)),
                0,
                np.minimum(abs(window.min(0) - z[inside]), abs(window.max(0) - z[inside])),
            )
            / z[inside]
        )
        seen += mutual.sum()
        good += (error[mutual] < 0.01).sum()
        same += mutual.sum() / inside.sum()
    assert seen > 10000 and good > 0.95 * seen and same / 4 > 0.5


def test_the_same_room_is_drawn_again(renderer, furniture):
    frames = []
    for seed in (7, 8, 7):
        room = sample_room(furniture, np.random.default_rng(seed))
        renderer.load(room)
        frames.append(
            renderer.render(CAMERA, look(room.size * [0.15, 0.15, 0.6], room.size * [0.5, 0.5, 0.3]))
        )
    for field in ('rgb', 'depth', 'instance'):
        np.testing.assert_array_equal(getattr(frames[0], field), getattr(frames[2], field))
    assert (frames[0].instance != frames[1].instance).any()
    assert frames[0].instance.max() < len(sample_room(furniture, np.random.default_rng(7)).names)
    assert (frames[0].depth > 0).mean() > 0.999  # a room is closed


def test_footprints_collide():
    box = np.array([0.0, 0, 1, 0.5, 0])
    assert overlap(box, np.array([1.9, 0, 1, 0.5, 0])) and not overlap(box, np.array([2.1, 0, 1, 0.5, 0]))
    assert not overlap(
        box, np.array([1.6, 1.1, 0.8, 0.1, np.pi / 4 * 3])
    )  # only a diagonal axis separates them
    assert overlap(box, np.array([0.9, 0.4, 0.8, 0.1, np.pi / 4 * 3]))


def test_rooms_are_plausible(furniture):
    for seed in range(12):
        room = sample_room(furniture, np.random.default_rng(seed), heldout=seed % 3 == 0)
        assert (room.size >= [3, 3, 2.4]).all() and (room.size <= [7, 7, 3.0]).all()
        assert {'floor', 'wall', 'ceiling', 'door'} <= set(room.names) and 1 <= len(room.lights) <= 4
        assert (room.photographic is None) == (seed % 3 == 0) == (not room.sheets)
        assert [p.name for p in room.pieces] == room.names[
            room.first_piece : room.first_piece + len(room.pieces)
        ]
        for i, box in enumerate(room.footprints):
            for other in room.footprints[:i]:
                assert not overlap(box - [0, 0, 0.01, 0.01, 0], other - [0, 0, 0.01, 0.01, 0])
        for piece in room.pieces:
            model, z = furniture.models[piece.model], piece.position[2]
            assert z + model.size[2] < room.size[2] + 1e-6
            if z > 0 and kind_of(model) == 'small':  # stands on something that is exactly there
                carriers = [
                    p.position[2] + furniture.models[p.model].top for p in room.pieces if p is not piece
                ]
                assert min(np.abs(top - z).min() for top in carriers) < 1e-3
