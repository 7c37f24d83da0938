"""What people leave in rooms, and the materials of furniture."""

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed')

from gsemsplat_ros.rooms import patterns
from gsemsplat_ros.rooms.finish import Finishes
from gsemsplat_ros.rooms.furnish import sample_room
from gsemsplat_ros.rooms.layout import Piece, Quad
from gsemsplat_ros.rooms.mesh import Mesh
from gsemsplat_ros.rooms.props import PROPS, Props
from gsemsplat_ros.rooms.shell import Shell
from gsemsplat_ros.rooms.triangles import VERTEX


def props(furniture, *pieces):
    shell = Shell(np.random.default_rng(1), 'bedroom', np.array([5.0, 4.0, 2.6]), photographic=True)
    return Props(shell, furniture, list(pieces), 1)


def test_curtains_hang_beside_their_window(furniture):
    made = props(furniture)
    window = Quad(1, np.array([2.0, 0.015, 2.2]), np.array([1.2, 0, 0]), np.array([0, 0, -1.3]), 0)
    for _ in range(5):
        made.curtains(window)
    sheets = made.shell.sheets
    assert 5 <= len(sheets) <= 10 and set(made.shell.names[1:]) == {'curtain'}
    for sheet in sheets:
        low, high = sheet.points.reshape(-1, 3).min(0), sheet.points.reshape(-1, 3).max(0)
        assert low[0] > 1.8 and high[0] < 3.4  # along the wall: up to 15 cm beside it, and folds
        assert low[1] > 0.015 and high[1] < 0.2  # before it
        assert 2.2 < high[2] <= 2.58 and low[2] < 0.95
        assert np.ptp(sheet.points[-1, :, 1]) > 0.02  # folded


def test_pillows_and_covers_lie_on_the_bed(furniture):
    index = next(i for i, m in enumerate(furniture.models) if m.name == 'bed' and max(m.size[:2]) > 1.5)
    size = np.array(furniture.models[index].size)
    bed = Piece(index, 'bed', (2.0, 2.0, 0.0), np.pi / 2, np.eye(3))
    made = props(furniture, bed)
    for _ in range(20):
        made.pillow(bed, 0.3)
        made.cover(0)
    assert {s.instance for s in made.shell.sheets} - {1}, 'no pillow found its place'
    for sheet in made.shell.sheets:
        at = sheet.points.reshape(-1, 3) - bed.position
        local = at @ [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # turned back by a right angle
        assert (np.abs(local[:, :2]) < size[:2] / 2 * 1.03 + 0.05).all()
        assert (local[:, 2] >= 0.01).all() and local[:, 2].max() < size[2] + 0.6


def test_books_stand_on_their_shelf(furniture):
    made = props(furniture)
    for _ in range(3):
        made.shelf()
    shell = made.shell

    def points(instance):
        mine = [q for q in shell.quads if q.instance == instance]
        return np.array([q.corner + a * q.u + b * q.v for q in mine for a in (0, 1) for b in (0, 1)])

    shelves = [i for i, name in enumerate(shell.names) if name == 'shelf']
    assert len(shelves) >= 2
    for ident in shelves:
        board, books = points(ident), points(ident + 1)
        assert shell.names[ident + 1] == 'book' and len(books) >= 60
        assert books[:, 2].min() == pytest.approx(board[:, 2].max())
        assert np.ptp(board[:, 2]) == pytest.approx(0.025)
        low, high = board[:, :2].min(0), board[:, :2].max(0)
        assert (books[:, :2] > low - 1e-6).all() and (books[:, :2] < high + 1e-6).all()
        assert (books[:, :2] > 0).all() and (books[:, :2] < shell.size[:2]).all()


def test_traces_of_people_are_in_rooms_for_training_only(furniture):
    found = set()
    for seed in range(8):
        room = sample_room(furniture, np.random.default_rng(seed))
        found |= set(room.names) & set(PROPS)
        for sheet in room.sheets:
            assert 0 < sheet.instance < len(room.names) and sheet.texture < len(room.textures)
            assert np.isfinite(sheet.points).all()
            assert (sheet.points > -0.3).all() and (sheet.points < room.size + 0.3).all()
        if seed > 1:
            continue
        heldout = sample_room(furniture, np.random.default_rng(seed), heldout=True)
        assert not heldout.sheets and all(piece.finish is None for piece in heldout.pieces)
    assert found == set(PROPS)


def test_a_part_has_one_material():
    """Two parts by colour, one of them with a texture of its own."""
    points = np.random.default_rng(0).uniform(0, 1, (8, 3)).astype(np.float32)
    colors = np.repeat(np.array([[200, 30, 30], [60, 60, 60]], np.uint8), 4, 0)
    textures = np.repeat(np.array([-1, 5], np.int16), 4)
    mesh = Mesh(points, np.zeros((8, 3), np.float32), np.zeros((8, 2), np.float32), colors, textures, None)
    patterned = 0
    for number in range(40):
        part = np.zeros(8, VERTEX)
        part['color'][:, :3] = colors
        part['layer_id'][:, 0] = np.where(textures < 0, 0, 9)
        Finishes(20, 8).apply(part, mesh, Piece(0, 'desk', (0, 0, 0), 0.0, np.eye(3), number))
        for half in (part[:4], part[4:]):
            assert len(np.unique(half['color'], axis=0)) == len(np.unique(half['normal'][:, 3])) == 1
            assert len(np.unique(half['layer_id'][:, 0])) == 1
        assert (part['layer_id'][4:, 0] == 9).all()  # its own texture stays
        layer = part['layer_id'][0, 0]
        assert layer == 0 or -26 < layer <= -20  # the last two of the eight are pictures for screens
        if layer < 0:
            patterned += 1
            scale = np.ptp(part['uv'][:4, 0]) / np.ptp(points[:4, 0])
            assert 0.79 < scale < 5.01
    assert 12 < patterned < 36


def test_lamps_shine_and_screens_show_pictures():
    points = np.random.default_rng(0).uniform(0, 1, (8, 3)).astype(np.float32)
    colors = np.repeat(np.array([[20, 20, 20], [220, 210, 200]], np.uint8), 4, 0)
    bare = np.full(8, -1, np.int16)
    mesh = Mesh(points, np.zeros((8, 3), np.float32), np.zeros((8, 2), np.float32), colors, bare, bare[:0])
    glow = {'desk lamp': 0, 'flat television': 0, 'desk': 0}
    for name in glow:
        for number in range(40):
            part = np.zeros(8, VERTEX)
            Finishes(20, 8).apply(part, mesh, Piece(0, name, (0, 0, 0), 0.0, np.eye(3), number))
            glowing = part['color'][:, 3] > 0
            glow[name] += glowing.any()
            if name == 'desk lamp':  # its bright part
                assert not glowing[:4].any() and glowing[4:].all() == glowing.any()
            if glowing.any() and name == 'flat television':  # its dark part, with one of the last two layers
                assert glowing[:4].all() and not glowing[4:].any()
                assert (part['layer_id'][:4, 0] <= -26).all() and (part['layer_id'][:4, 0] >= -27).all()
                np.testing.assert_allclose(part['uv'][:4, :2].min(0), 0, atol=1e-6)
                np.testing.assert_allclose(part['uv'][:4, :2].max(0), 1, atol=1e-6)
    assert 12 < glow['desk lamp'] < 36 and 12 < glow['flat television'] < 36 and not glow['desk']


@pytest.mark.parametrize(
    'name', ['weave', 'leather', 'grain', 'marble', 'speckle', 'dirt', 'stripes', 'flowers']
)
def test_patterns_leave_the_brightness_of_their_part(name):
    image = getattr(patterns, name)(np.random.default_rng(2))
    assert image.shape == (256, 256, 3) and image.dtype == np.uint8
    assert image.mean() == pytest.approx(255 * patterns.LEVEL, rel=0.2) and image.std() > 1
