"""What answers an annotated view: points against plain loops, saved features, peers, and the pair found on
disk.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.annotated_views import CONTEXT, SCENE, SIDE, write_eval
from support.drawn_room import poses
from support.tiny_network import TINY

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.datasets.scannetpp import ScanNetPP
from gsemsplat_ros.evaluation.annotated_views import Inputs, read_cameras, read_view
from gsemsplat_ros.evaluation.input_pairs import find_inputs, find_pair
from gsemsplat_ros.evaluation.methods import ColorOnly, LiftedFeatures, Network, SavedFeatures
from gsemsplat_ros.evaluation.splat_points import nearest_points, spacing
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import View, fit
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.scene import Keyframe, Scene
from gsemsplat_ros.semantics.decoder import Decoders

CAMERA = Camera(24, 18, 20.0, 22.0, 11.5, 8.5)
PHRASES = 'wall', 'box'


class Words:
    """A text space of three directions."""

    name, dim = 'three', 3

    def encode(self, phrases):
        table = {'wall': (1, 0, 0), 'box': (0, 1, 0), 'stuff': (0, 0, 1)}
        return np.array([table[phrase] for phrase in phrases], np.float32).reshape(-1, 3)


def plain_nearest(points, size, camera, camera_from_points):
    """Pixel by pixel: the nearest of the points whose square covers it."""
    seen, depth = np.full((camera.height, camera.width), -1), np.full((camera.height, camera.width), np.inf)
    for i, point in enumerate(points):
        x, y, z = camera_from_points[:3, :3] @ point + camera_from_points[:3, 3]
        if not z > 0.01:
            continue
        u, v = round(camera.fx * x / z + camera.cx), round(camera.fy * y / z + camera.cy)
        half = int(np.clip(np.ceil((max(camera.fx, camera.fy) * size[i] / z - 1) / 2 - 0.05), 0, 3))
        for row in range(max(0, v - half), min(camera.height, v + half + 1)):
            for column in range(max(0, u - half), min(camera.width, u + half + 1)):
                if z < depth[row, column]:
                    seen[row, column], depth[row, column] = i, z
    return seen


def test_nearest_points_are_the_plain_ones():
    rng = np.random.default_rng(0)
    points = rng.normal(0, (0.6, 0.5, 1.0), (300, 3)) + (0, 0, 1.2)
    size = rng.uniform(0, 0.2, 300)
    turned = np.eye(4)
    turned[:3, 3] = 0.1, -0.2, 0.3
    seen = nearest_points(points, size, CAMERA, turned)
    np.testing.assert_array_equal(seen, plain_nearest(points, size, CAMERA, turned))
    assert (seen >= 0).mean() > 0.3 and (seen < 0).any()
    assert (nearest_points(points * np.nan, size, CAMERA, turned) == -1).all()


def test_spacing_is_that_of_the_surface():
    u, v = np.meshgrid(np.arange(8.0), np.arange(6.0))
    grid = np.stack((0.1 * u, 0.2 * v, np.where(u < 4, 1.0, 3.0)), -1)[None]  # a step between columns 3 and 4
    np.testing.assert_allclose(spacing(grid), 0.1)


def test_a_wall_of_points_has_no_holes():
    """A grid of points seen from closer by covers every pixel of the picture in the middle."""
    v, u = np.mgrid[:18, :24]
    wall = np.stack(((u - 11.5) / 20, (v - 8.5) / 22, np.ones_like(u)), -1) * 2.0
    closer = np.eye(4)
    closer[2, 3] = -0.7
    seen = nearest_points(wall.reshape(-1, 3), spacing(wall[None]).ravel(), CAMERA, closer)
    assert (seen >= 0).all()
    np.testing.assert_array_equal(
        nearest_points(wall.reshape(-1, 3), spacing(wall[None]).ravel(), CAMERA, np.eye(4)),
        np.arange(18 * 24).reshape(18, 24),
    )


class WallPipeline:
    """Both input pictures lie on a wall 2 m away, whatever they show; codes are nothing."""

    text_encoder, canonical = Words(), Words().encode(['stuff'])
    decoders = Decoders.small((16, 3)).requires_grad_(False)

    def __init__(self):
        self.pairs = []

    def build(self, pair):
        self.pairs.append(pair)
        _, window = fit(pair.first, 48, 36)
        v, u = np.mgrid[:18, :24]
        wall = np.stack(((u - 11.5) / 20, (v - 8.5) / 22, np.ones_like(u)), -1) * 2.0
        means = torch.tensor(np.concatenate([wall, wall + (0, 0, 0.5)]).reshape(-1, 3), dtype=torch.float32)
        n = len(means)
        gaussians = Gaussians(
            means,
            torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
            torch.full((n, 3), 0.05),
            torch.full((n,), 0.9),
            torch.full((n, 3), 0.25),
            torch.zeros(n, 32),
            'camera',
        )
        return Scene(
            gaussians,
            Keyframe(CAMERA, None, None, pair.first.image, window, 'camera', 0),
            None,
            1.0,
            'network',
            0,
            0,
            {},
        )


def some_inputs(first, second, pose=np.eye(4)):
    camera = Camera(48, 36, 40.0, 44.0, 23.5, 17.5)
    views = [
        View(np.full((36, 48, 3), shade, np.uint8), camera, map_from_camera=np.eye(4))
        for shade in (first, second)
    ]
    return Inputs(*views, CAMERA, pose)


def test_features_are_lifted_from_the_picture_whose_point_is_seen():
    pipeline = WallPipeline()
    network = Network(pipeline)

    def dense(image):  # bright pictures are walls, dark ones boxes
        assert image.shape == (32, 64, 3), 'sides are multiples of 32'
        feature = (1, 0, 0) if image.mean() > 100 else (0, 1, 0)
        return np.broadcast_to(np.float32(feature), (2, 3, 3)).copy()

    lifted = LiftedFeatures(network, dense)
    shown = lifted.show(None, some_inputs(200, 40), Path(), PHRASES)
    certain, doubt = 1 / (1 + np.exp(-10)), 0.5
    np.testing.assert_allclose(shown.relevancy[0, 0], certain, atol=1e-4)
    np.testing.assert_allclose(shown.relevancy[0, 1], doubt, atol=1e-4)
    np.testing.assert_allclose(shown.rgb, 200 / 255)
    assert shown.alpha.min() == 1
    behind = np.eye(4)
    behind[2, 3] = 2.2  # between the two walls: only the second is before the camera
    shown = lifted.show(None, some_inputs(200, 40, behind), Path(), PHRASES)
    known = shown.alpha > 0
    assert known.any()
    np.testing.assert_allclose(shown.relevancy[0, 1][known], certain, atol=1e-4)
    np.testing.assert_allclose(shown.rgb[known], 40 / 255)
    away = np.diag((1.0, -1, -1, 1))  # looking the other way: nothing is there, and nothing wins
    shown = lifted.show(None, some_inputs(200, 40, away), Path(), PHRASES)
    assert not shown.alpha.any() and not shown.relevancy.any() and not shown.rgb.any()


def test_a_network_is_told_no_cameras_unless_it_is_calibrated():
    inputs = some_inputs(1, 2)
    for calibrated in (False, True):
        pipeline = WallPipeline()
        network = Network(pipeline, calibrated)
        network.scene(inputs), network.scene(some_inputs(1, 2)), network.scene(some_inputs(3, 2))
        assert len(pipeline.pairs) == 2, 'a pair is built once'
        pair = pipeline.pairs[0]
        assert (pair.first.camera is not None) == calibrated == (pair.first_from_second is not None)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """A random network without a stem, as the public ones, with its pipeline; and its Splatt3R file."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('weights')
    config = TINY.replace(long_side=48, enc_depth=1, output_stride=2, descriptors=False)
    model = GSemSplat(config)
    for head in (model.downstream_head1, model.downstream_head2):
        head.dpt.head[-1].bias.data = torch.tensor([0.0, 0.0, np.log1p(2.0), 0.0])
        head.gaussian_dpt.dpt.head[-1].bias.data = torch.tensor(
            [*[0.0] * 3, *[-4.5] * 3, 0, 0, 0, 1.0, *[0.0] * 3, 4.0]
        )
    tensors = model.state_dict()
    decoders = Decoders.small((16, 32, 384)).state_dict()
    weights.save(
        folder / 'tiny.safetensors',
        {**tensors, **decoders},
        {'config': config.to_json(), 'text_encoder': 'minilm-l6'},
    )
    plain = config.replace(language_channels=0)
    weights.save(
        folder / 'splatt3r.safetensors',
        {k: t for k, t in tensors.items() if 'gaussian_language' not in k},
        {'config': plain.to_json(), 'text_encoder': 'minilm-l6'},
    )
    weights.save(
        folder / 'points.safetensors',
        {k: t for k, t in tensors.items() if '.gaussian' not in k},
        {'config': plain.replace(gaussians=False).to_json(), 'text_encoder': 'minilm-l6'},
    )
    return folder


@pytest.fixture(scope='module')
def pipeline(tiny):
    return Pipeline.load(tiny / 'tiny.safetensors', 'cpu', exact=True)


def textured(seed):
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 255, (9, 12, 3)), np.ones((4, 4, 1))).astype(np.uint8)


def textured_inputs():
    views = [
        View(textured(seed), Camera(48, 36, 40.0, 44.0, 23.5, 17.5), map_from_camera=np.eye(4))
        for seed in (1, 2)
    ]
    pose = np.eye(4)
    pose[0, 3] = 0.05
    return Inputs(*views, CAMERA, pose)


def test_the_splatt3r_path_is_what_the_network_draws_without_calibration(pipeline, tiny):
    inputs = textured_inputs()
    ours = Network(pipeline).scene(inputs).gaussians
    for plain in (ColorOnly(pipeline.network), ColorOnly.load(tiny / 'splatt3r.safetensors', 'cpu')):
        for name in ('means', 'quats', 'scales', 'opacities', 'colors'):
            torch.testing.assert_close(
                getattr(plain.gaussians(inputs), name), getattr(ours, name), atol=1e-4, rtol=1e-4
            )
        shown = plain.show(None, inputs, Path(), ['wall'])
        assert shown.relevancy is None and shown.rgb.shape == (18, 24, 3) and shown.alpha.max() > 0.5
    with pytest.raises(ValueError, match='predicts no Gaussians'):
        ColorOnly.load(tiny / 'points.safetensors', 'cpu')


def test_saved_features_answer_as_the_network_that_made_them(pipeline, tmp_path):
    """What the network decodes, saved and scored as the public script does, gives the network's own
    relevancy.
    """
    inputs = textured_inputs()
    drawn = render(Network(pipeline).scene(inputs).gaussians, CAMERA, np.linalg.inv(inputs.first_from_camera))
    np.save(
        tmp_path / 'restored_feat_frame_1.npy', torch.stack(pipeline.decoders.decode(drawn.codes)).numpy()
    )
    frame = type(
        'AnnotatedView',
        (),
        {
            'image': np.zeros((18, 24, 3), np.uint8),
            'rendering': None,
            'name': 'frame_1',
            'features': tmp_path / 'restored_feat_frame_1.npy',
        },
    )()
    saved = SavedFeatures(pipeline.text_encoder, pipeline.canonical).show(
        frame, None, tmp_path, ['wall', 'chair']
    )
    ours = Network(pipeline).show(None, inputs, tmp_path, ['wall', 'chair'])
    np.testing.assert_allclose(saved.relevancy, ours.relevancy, atol=1e-5)
    assert saved.rgb is None and saved.alpha is None
    with pytest.raises(ValueError, match='has 384 channels, the text encoder three 3: give'):
        SavedFeatures(Words(), np.eye(3)).show(frame, None, tmp_path, PHRASES)


def test_saved_features_are_read_in_parts(monkeypatch, tmp_path):
    from gsemsplat_ros.evaluation import methods

    features = np.random.default_rng(0).normal(size=(2, 40, 36, 3)).astype(np.float16)
    np.save(tmp_path / 'restored_feat.npy', features)
    frame = type(
        'AnnotatedView',
        (),
        {
            'image': np.zeros((40, 36, 3), np.uint8),
            'rendering': np.full((40, 36, 3), 51, np.uint8),
            'name': 'frame_1',
            'features': tmp_path / 'restored_feat.npy',
        },
    )()
    whole = SavedFeatures(Words(), Words().encode(['stuff'])).show(frame, None, tmp_path, PHRASES)
    monkeypatch.setattr(methods, 'CHUNK', 7 * 2 * 36 * 3)
    parts = SavedFeatures(Words(), Words().encode(['stuff'])).show(frame, None, tmp_path, PHRASES)
    np.testing.assert_allclose(whole.relevancy, parts.relevancy, rtol=1e-6)
    feature = features[1, 20, 5].astype(np.float64)
    p, n = feature[0] / np.linalg.norm(feature), feature[2] / np.linalg.norm(feature)
    assert whole.relevancy[1, 0, 20, 5] == pytest.approx(
        np.exp(10 * p) / (np.exp(10 * p) + np.exp(10 * n)), abs=1e-4
    )
    assert whole.rgb[0, 0, 0] == pytest.approx(0.2)


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp('eval')
    return write_eval(folder / 'eval', folder / 'scannetpp'), folder / 'scannetpp'


def test_the_pair_is_found_on_disk(scene, tmp_path):
    folder, root = scene
    frame = read_view(folder / 'frame_00003.json')
    source = ScanNetPP(root, 'val', SIDE, SIDE)
    found, told = find_inputs(source, SCENE, frame), read_cameras(folder, frame)
    np.testing.assert_allclose(found.camera.K, told.camera.K)
    assert {tuple(view.map_from_camera[:3, 3]) for view in (found.first, found.second)} == {
        tuple(poses()[i][:3, 3]) for i in CONTEXT
    }
    ahead = np.linalg.inv(found.first.map_from_camera) @ told.first.map_from_camera @ told.first_from_camera
    np.testing.assert_allclose(found.first_from_camera, ahead, atol=1e-9)
    frame.image[:] = np.random.default_rng(0).integers(0, 255, frame.image.shape)
    with pytest.raises(ValueError, match='no frame looks like frame_00003.jpg'):
        find_inputs(source, SCENE, frame)


def test_a_mask_of_no_pair_is_refused(scene, tmp_path):
    folder = Path(shutil.copytree(scene[0], tmp_path / SCENE))
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:5] = True
    np.save(folder / 'mask_00003.npy', mask)
    with pytest.raises(ValueError, match='no two frames see what the mask of frame_00003 shows'):
        find_inputs(ScanNetPP(scene[1], 'val', SIDE, SIDE), SCENE, read_view(folder / 'frame_00003.json'))


def test_find_pair_is_the_best_of_all_pairs():
    rng = np.random.default_rng(3)
    seen = [rng.random((9, 11)) < rng.uniform(0.2, 0.7) for _ in range(7)]
    seen[4] = None
    mask = (seen[1] | seen[5]) & (rng.random((9, 11)) < 0.95)
    first, second, overlap = find_pair(seen, mask)
    assert {first, second} == {1, 5} and seen[first].sum() >= seen[second].sum()

    def plain(i, j):
        union = seen[i] | seen[j]
        return (union & mask).sum() / (union | mask).sum()

    assert overlap == pytest.approx(plain(1, 5))
    assert overlap == pytest.approx(
        max(plain(i, j) for i in range(7) for j in range(7) if 4 not in (i, j) and i != j)
    )
