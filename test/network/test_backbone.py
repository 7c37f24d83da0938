"""Geometry by another network: what its points become, and a known rig whatever it says of the pose."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_model
from support.patterned_box import CAMERA, moved, room_view
from support.tiny_network import TINY

from gsemsplat_ros.checkpoints import checkpoint
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.network.backbone import analytic_gaussians, on_points, with_geometry
from gsemsplat_ros.network.config import SH_C0
from gsemsplat_ros.network.depth_anything_3 import normalised, prediction_of, public_network
from gsemsplat_ros.network.model import GSemSplat, Prediction, ViewPrediction
from gsemsplat_ros.pipeline import Pipeline

BASELINE = 0.12
UNIT = 0.4  # metres of the unit of the pretended network
WORLD = moved((0.3, 0.2, -1.0), 0.7)  # its world is no camera's frame


def outputs(shots, poses, camera, focal_error=1.0, unit=UNIT):
    """What Depth Anything 3 gives for these images: depths, confidence, cameras_from_world, K."""
    size = camera.width * 2, camera.height * 2  # of its own grid, another than the network's
    depth = np.stack([cv2.resize(depth, size, interpolation=cv2.INTER_LINEAR) / unit for _, depth in shots])
    K = camera.resized(*size).K + [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]  # corners at integers
    K[:2, :2] *= focal_error
    world = [np.linalg.inv(WORLD @ pose)[:3] for pose in poses]
    for camera_from_world in world:
        camera_from_world[:, 3] /= unit
    return [
        torch.tensor(np.stack(x) if isinstance(x, list) else x).float()[None]
        for x in (depth, np.full(depth.shape, 9.0), world, np.stack((K, K)))
    ]


class PretendedBackbone:
    """A Backbone that knows the depths of two images, up to scale, and says the poses that it is given."""

    def __init__(self, shots, poses, camera=CAMERA, focal_error=1.0):
        self.prediction = prediction_of(*outputs(shots, poses, camera, focal_error))

    def __call__(self, images1, images2):
        return self.prediction


def built(pipeline, pipeline_weights, pair, backbone):
    weights = checkpoint.load(pipeline_weights)
    other = Pipeline(weights, pipeline.text_encoder, torch.device('cpu'), geometry=(backbone, 'pretended'))
    return other.build(pair)


def test_depths_and_cameras_become_points_of_the_first_camera():
    shots = [room_view(pose) for pose in (np.eye(4), moved((0.3, -0.05, 0.1), 0.1))]
    poses = np.eye(4), moved((0.3, -0.05, 0.1), 0.1)
    given = outputs(shots, poses, CAMERA)
    prediction = prediction_of(*given)
    fine = CAMERA.resized(640, 480)
    for view, depth, pose in zip((prediction.first, prediction.second), given[0][0].double().numpy(), poses):
        true = fine.unproject(depth * UNIT) @ pose[:3, :3].T + pose[:3, 3]
        np.testing.assert_allclose(view.pts3d[0].double().numpy() * UNIT, true, atol=2e-5)
        assert view.conf.shape == (1, 480, 640) and (view.conf == 9).all()
    expected = poses[1].copy()
    expected[:3, 3] /= UNIT
    np.testing.assert_allclose(prediction.first_from_second[0].numpy(), expected, atol=1e-5)


def test_analytic_gaussians_are_as_wide_as_their_pixels():
    camera = Camera(16, 12, 20.0, 20.0, 7.5, 2.0)
    # a wall above a floor, 1 m below the camera: along columns the floor's points are far apart
    rows = np.arange(12)[:, None]
    depth = np.broadcast_to(np.where(rows < 4, 3.0, 20 / np.maximum(rows - 2.0, 1)), (12, 16))
    points = torch.from_numpy(camera.unproject(depth)).float()[None]
    image = torch.rand(1, 3, 24, 32) * 2 - 1
    view = analytic_gaussians(ViewPrediction(points, torch.full((1, 12, 16), 4.0)), image)
    np.testing.assert_allclose(view.scales[0, ..., 0].numpy(), 0.5 * depth / 20, rtol=1e-5)
    assert (view.scales == view.scales[..., :1]).all() and torch.equal(view.means, points)
    assert (view.opacities == 0.9375).all()
    assert view.quats_xyzw.shape == (1, 12, 16, 4) and (view.quats_xyzw[..., 3] == 1).all()
    colors = 0.5 + SH_C0 * view.sh[0]
    expected = (image[0].unflatten(1, (12, 2)).unflatten(3, (16, 2)).mean((2, 4)) + 1) / 2
    torch.testing.assert_close(colors, expected.permute(1, 2, 0), atol=1e-6, rtol=0)


def test_points_keep_their_surface_at_another_resolution():
    fine = Camera(504, 378, 400.0, 400.0, 250.0, 190.0)
    normal, offset = np.array([0.2, -0.3, 0.9]), 2.5
    rays = fine.unproject(np.ones((378, 504)))
    points = torch.from_numpy(rays * (offset / (rays @ normal))[..., None]).float()[None]
    own = ViewPrediction(torch.zeros(1, 192, 256, 3), torch.zeros(1, 192, 256))
    view = on_points(own, ViewPrediction(points, torch.full((1, 378, 504), 3.0)))
    found = view.pts3d[0].double().numpy()
    np.testing.assert_allclose(found @ normal, offset, atol=1e-5)
    small = fine.resized(256, 192)
    uv, _ = small.project(found)
    assert np.abs(uv - small.project(small.unproject(np.ones((192, 256))))[0]).max() < 0.02
    assert torch.allclose(view.conf, torch.tensor(3.0))


def test_our_network_is_a_backbone_as_it_is():
    torch.manual_seed(0)
    seen, other = GSemSplat(TINY.replace(output_stride=2)).eval(), GSemSplat(TINY.replace(enc_depth=1)).eval()
    images = torch.rand(2, 1, 3, 48, 64) * 2 - 1
    with torch.inference_mode():
        mine = seen(*images)
        geometry = other(*images)
        joined = with_geometry(mine, geometry, tuple(images))
    for view, of, points in zip(
        vars(joined).values(), (mine.first, mine.second), (geometry.first, geometry.second)
    ):
        assert torch.equal(view.codes, of.codes)
        average = torch.nn.functional.avg_pool2d(points.pts3d.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        torch.testing.assert_close(view.pts3d, average)


@pytest.mark.parametrize(
    'said, focal_error',
    [
        (moved((BASELINE, 0, 0)), 1.0),
        pytest.param(moved((BASELINE, 0, 0)), 1.15, marks=pytest.mark.heavy),
        (moved((-0.3, 0.2, 0.1), 0.35), 1.0),  # turned by 20 degrees, and the other way
        pytest.param(moved((0, 0, 0)), 1.0, marks=pytest.mark.heavy),
    ],
    ids=['right', 'wrong focal length', 'wrong pose', 'no motion at all'],
)
def test_a_known_rig_is_metric_whatever_the_network_says_of_its_pose(
    pipeline, pipeline_weights, said, focal_error
):
    """Depth Anything 3 itself fails on two images of known extrinsics (its issues 88 and 144)."""
    true_poses = np.eye(4), moved((BASELINE, 0, 0))
    shots = [room_view(pose) for pose in true_poses]
    for image, _ in shots:
        image[:100] = 128  # nothing to measure: there the depths of the second view are the network's
    pair = Pair(View(shots[0][0], CAMERA), View(shots[1][0], CAMERA), BASELINE)
    backbone = PretendedBackbone(shots, (np.eye(4), said), focal_error=focal_error)
    scene = built(pipeline, pipeline_weights, pair, backbone)
    assert scene.scale_source == 'stereo baseline' and scene.scale == pytest.approx(UNIT, rel=0.01)
    np.testing.assert_allclose(scene.first_from_second, true_poses[1], atol=1e-9)
    camera = scene.keyframe.camera
    size = camera.width, camera.height
    np.testing.assert_allclose(camera.K, CAMERA.resized(*size).K)
    halves = scene.gaussians.means.double().numpy().reshape(2, size[1], size[0], 3)
    for points, (_, depth), pose in zip(halves, shots, true_poses):
        small = cv2.resize(depth, size, interpolation=cv2.INTER_AREA)
        true = camera.unproject(small) @ pose[:3, :3].T + pose[:3, 3]
        away = np.linalg.norm(points - true, axis=-1) / small
        assert np.median(away) < 0.02 and np.percentile(away, 90) < 0.05, np.percentile(away, (50, 90, 95))


def test_depths_that_contradict_the_rig_are_refused_in_one_line(pipeline, pipeline_weights):
    poses = np.eye(4), moved((BASELINE, 0, 0))
    shots = [room_view(pose) for pose in poses]
    pair = Pair(View(shots[0][0], CAMERA), View(shots[1][0], CAMERA), BASELINE)
    backbone = PretendedBackbone(shots, poses)
    behind = replace(backbone.prediction.first, pts3d=-backbone.prediction.first.pts3d)
    backbone.prediction = replace(backbone.prediction, first=behind)
    with pytest.raises(ValueError, match='disparities agree with the depths of the network') as error:
        built(pipeline, pipeline_weights, pair, backbone)
    assert '\n' not in str(error.value)


@pytest.mark.heavy
def test_without_a_rig_the_images_tell_focal_length_and_pose(pipeline, pipeline_weights):
    motion = moved((0.9, 0.1, 0.3), -0.25)
    shots = [room_view(pose) for pose in (np.eye(4), motion)]
    pair = Pair(View(shots[0][0]), View(shots[1][0]))
    wrong = moved((0.5, 0.4, 0.0), 0.1)
    scene = built(
        pipeline, pipeline_weights, pair, PretendedBackbone(shots, (np.eye(4), wrong), CAMERA, 0.85)
    )
    camera = scene.keyframe.camera
    assert scene.focal_source == 'images' and not scene.metric
    assert camera.fx == pytest.approx(CAMERA.fx * camera.width / CAMERA.width, rel=0.04)
    np.testing.assert_allclose(scene.first_from_second[:3, :3], motion[:3, :3], atol=0.03)
    np.testing.assert_allclose(scene.first_from_second[:3, 3], motion[:3, 3] / UNIT, atol=0.15)


def test_images_are_resized_and_normalised_as_published():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 378, 504, 3), np.uint8)  # of the size that it wants
    tensor = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normalised(tensor).permute(0, 2, 3, 1).numpy(), expected, atol=2e-5)
    sizes = {(384, 512): (378, 504), (512, 288): (504, 280), (512, 512): (504, 504), (16, 512): (14, 504)}
    for given, wanted in sizes.items():
        assert normalised(torch.zeros(1, 3, *given)).shape[2:] == wanted


def test_a_prediction_holds_no_pose_unless_a_network_says_one():
    view = ViewPrediction(torch.zeros(1, 2, 2, 3), torch.ones(1, 2, 2))
    assert Prediction(view, view).first_from_second is None


@pytest.mark.heavy
def test_depth_anything_3_with_random_weights_on_a_known_rig(pipeline_weights, tmp_path):
    """From its file to metres: what it does not know, the rig measures."""
    pytest.importorskip('depth_anything_3')
    torch.manual_seed(0)
    save_model(public_network('small'), tmp_path / 'da3.safetensors')
    other = Pipeline.load(pipeline_weights, 'cpu', geometry=tmp_path / 'da3.safetensors')
    assert other.geometry == "Depth Anything 3 SMALL, the user's file da3.safetensors"
    shots = [room_view(pose) for pose in (np.eye(4), moved((BASELINE, 0, 0)))]
    scene = other.build(Pair(View(shots[0][0], CAMERA), View(shots[1][0], CAMERA), BASELINE))
    assert scene.scale_source == 'stereo baseline'
    camera = scene.keyframe.camera
    depth = cv2.resize(shots[0][1], (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    drawn = scene.keyframe.rendering.depth.numpy()
    assert np.nanmedian(np.abs(drawn / depth - 1)) < 0.03
