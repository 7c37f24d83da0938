"""ScanNet++ in the public layout: cuts, poses and depths that agree, coverage, samples, every missing
piece.
"""

import json

import cv2
import numpy as np
import pytest
from support.drawn_room import assert_consistent, assert_true, poses, write_json, write_scannetpp
from support.packed_rooms import pack_folder

from gsemsplat_ros.datasets.coverage import coarse, coverage_matrix, draw
from gsemsplat_ros.datasets.frames import Cut, Geometry
from gsemsplat_ros.datasets.scannetpp import ScanNetPP
from gsemsplat_ros.datasets.sources import SceneSampler, open_source
from gsemsplat_ros.images.camera import Camera

SCENE = 'aaaa000001'


@pytest.fixture
def root(tmp_path):
    write_scannetpp(tmp_path)
    return tmp_path


def open_(root, **settings):
    return open_source(
        root, settings.pop('split', 'train'), settings.pop('height', 64), settings.pop('width', 64)
    )


def test_a_cut_keeps_rays(root):
    camera = Camera(121, 80, 90.0, 95.0, 66.8, 37.3)
    u, v = np.meshgrid(np.arange(121), np.arange(80))
    ramp = np.stack((2 * u, 3 * v, 0 * u), -1).astype(np.uint8)
    for height, width in ((32, 32), (48, 64), (160, 160)):  # smaller, another shape, larger
        cut = Cut.of(camera, height, width)
        left, top, right, bottom = cut.box
        assert (left + right) / 2 == round(66.8 + 0.5) and (top + bottom) / 2 == round(37.3 + 0.5)
        assert 0 in (left, 121 - right) and 0 in (top, 80 - bottom)  # the largest such window
        image, small = cut.image(ramp), cut.camera
        assert image.shape == (height, width, 3) and (small.height, small.width) == (height, width)
        x, y = np.meshgrid(np.arange(4, width - 4), np.arange(4, height - 4))
        # a pixel of the cut looks along the ray of the place in the picture whose colour it shows
        rays = (x - small.cx) / small.fx, (y - small.cy) / small.fy
        inner = image[4:-4, 4:-4].astype(float)
        assert np.abs(inner[..., 0] / 2 - (camera.fx * rays[0] + camera.cx)).max() < 0.6
        assert np.abs(inner[..., 1] / 3 - (camera.fy * rays[1] + camera.cy)).max() < 0.6
        assert (
            np.abs((inner[..., 0] / 2 - (camera.fx * rays[0] + camera.cx)).mean()) < 0.3
        )  # truncation to 8 bits
        ids = cut.nearest(u.astype(np.float32))
        assert np.abs(ids[4:-4, 4:-4] - (camera.fx * rays[0] + camera.cx)).max() <= 0.51
    with pytest.raises(ValueError, match='principal point .* wanted one inside'):
        Cut.of(Camera(121, 80, 90.0, 95.0, 130.0, 37.3), 32, 32)


def test_depths_poses_and_images_agree(root):
    source = open_(root)
    assert source.kind == 'scannetpp' and source.scenes == (SCENE,)
    names = source.frames(SCENE)
    assert names == tuple(f'DSC{i:05d}.JPG' for i in range(5))
    frames = [source.frame(SCENE, name) for name in names]
    for a, b in ((0, 1), (1, 0), (0, 3), (4, 2)):
        assert_consistent(frames[a], frames[b])
    assert frames[0].image.shape == (64, 64, 3) and frames[0].geometry.depth.shape == (64, 64)
    true = poses(5)
    for frame, pose in zip(frames, true):
        assert_true(frame, pose)
    moved = np.linalg.inv(frames[0].geometry.world_from_camera) @ frames[1].geometry.world_from_camera
    np.testing.assert_allclose(moved, np.linalg.inv(true[0]) @ true[1], atol=1e-9)
    # a wrong pose would have been found
    g = frames[0].geometry
    turned = g.world_from_camera @ np.diag((1.0, -1.0, -1.0, 1.0))
    wrong = type(frames[0])(SCENE, 'x', frames[0].image, Geometry(g.depth, g.camera, turned))
    with pytest.raises(AssertionError):
        assert_consistent(wrong, frames[1])


def test_bad_frames_and_left_out_scenes(tmp_path):
    write_scannetpp(tmp_path, ('303745abc7', SCENE), bad=('DSC00001.JPG',))
    source = open_(tmp_path)
    assert source.scenes == (SCENE,)
    assert source.frames(SCENE) == tuple(f'DSC{i:05d}.JPG' for i in (0, 2, 3, 4))
    write_scannetpp(tmp_path, ('303745abc7', 'cc5237fd77'), split='val')
    assert open_(tmp_path, split='val').scenes == ('303745abc7',)


def test_coverage_is_the_share_that_the_other_sees():
    camera = Camera(48, 48, 48.0, 48.0, 23.5, 23.5)
    wall = np.full((48, 48), 2.0, np.float32)
    right, behind = np.eye(4), np.eye(4)
    right[0, 3] = 0.5  # a quarter of the 2 m that are seen
    behind[2, 3] = -2.0  # sees 4 m, of which the others hold a quarter of the area
    views = [
        Geometry(wall, camera, np.eye(4)),
        Geometry(wall, camera, right),
        Geometry(2 * wall, camera, behind),
        Geometry(0 * wall, camera, np.eye(4)),
    ]
    matrix = coverage_matrix(views)
    np.testing.assert_allclose(np.diag(matrix), (1, 1, 1, 0))
    np.testing.assert_allclose((matrix[0, 1], matrix[1, 0]), 0.75, atol=0.01)
    np.testing.assert_allclose((matrix[2, 0], matrix[0, 2]), (1.0, 0.25), atol=0.03)
    assert (matrix[3] == 0).all() and (matrix[:, 3] == 0).all()
    near = wall.copy()
    near[:, :24] = 1.0  # something stands before the left half of the wall
    assert coverage_matrix([Geometry(near, camera, np.eye(4)), views[0]])[0, 1] == pytest.approx(0.5)


def test_coarse_views_cover_the_same(root):
    source = open_(root)
    geometries = [source.geometry(SCENE, name) for name in source.frames(SCENE)]
    fine, rough = coverage_matrix(geometries), coverage_matrix([coarse(g, 16) for g in geometries])
    assert np.abs(fine - rough).max() < 0.08
    assert (np.diff(fine[0]) < 0).all()  # every step aside shares less


def test_samples_follow_the_thresholds():
    coverage = np.array(
        [
            [1, 0.9, 0.5, 0.2, 0.1, 0.31],
            [0.9, 1, 0.2, 0.2, 0.4, 0.2],
            [0.5, 0.5, 1, 0.2, 0.1, 0.2],
            [0.1, 0.1, 0.25, 1, 0, 0],
            [0, 0, 0, 0, 1, 0.2],
            [0.1, 0.1, 0.1, 0.1, 0.1, 1],
        ]
    )
    seen = set()
    for seed in range(300):
        first, second, targets = draw(coverage, np.random.default_rng(seed))
        seen.add((first, second))
        assert len({first, second, *targets}) == 5  # three others
        if first == 0:
            assert coverage[0, second] > 0.3
        good = [t for t in range(6) if t not in (first, second) and coverage[[first, second], t].max() > 0.3]
        if len(good) >= 3:
            assert set(targets) <= set(good)
        else:  # the best three
            covered = coverage[[first, second]].max(0)
            third = sorted(covered[[t for t in range(6) if t not in (first, second)]])[-3]
            assert covered[targets].min() >= third
    assert {pair for pair in seen if pair[0] == 0} == {(0, 1), (0, 2), (0, 5)}
    assert {pair for pair in seen if pair[0] == 3} == {(3, 2)}  # nothing covers enough: the best
    assert {pair for pair in seen if pair[0] == 4} == {(4, 5)}
    assert draw(np.ones((2, 2)), np.random.default_rng(0))[2] in ([0], [1])  # nothing else is there


def test_coverage_is_read_or_computed_once(root, monkeypatch):
    samples = SceneSampler(open_(root), root / 'kept')
    computed = samples.coverage(SCENE)
    assert computed.shape == (5, 5) and (root / 'kept' / SCENE / 'coverage.npy').is_file()
    monkeypatch.setattr('gsemsplat_ros.datasets.sources.coverage_matrix', None)
    np.testing.assert_array_equal(SceneSampler(open_(root), root / 'kept').coverage(SCENE), computed)
    published = np.arange(25).reshape(5, 5) / 25
    for value in (published.tolist(), {SCENE: published.tolist()}):
        write_json(root / 'coverage' / f'{SCENE}.json', value)
        np.testing.assert_allclose(
            SceneSampler(open_(root), root / 'other').coverage(SCENE), published, atol=1e-6
        )
    write_scannetpp(root, bad=('DSC00002.JPG',))  # the file speaks of all frames
    kept = SceneSampler(open_(root), root / 'other').coverage(SCENE)
    np.testing.assert_allclose(kept, np.delete(np.delete(published, 2, 0), 2, 1), atol=1e-6)
    write_json(root / 'coverage' / f'{SCENE}.json', [[1.0, 0.0, 0.0]] * 3)
    with pytest.raises(ValueError, match=r'wanted 4 or 5 frames a side'):
        SceneSampler(open_(root), root / 'other').coverage(SCENE)


def test_a_sample_is_in_the_first_frame(root):
    sample = SceneSampler(open_(root), root / 'kept').draw(np.random.default_rng(1))
    assert len(sample.frames) == 5 and len({frame.name for frame in sample.frames}) == 5
    np.testing.assert_allclose(sample.first_from_camera[0], np.eye(4), atol=1e-12)
    worlds = [frame.geometry.world_from_camera for frame in sample.frames]
    np.testing.assert_allclose(worlds[0] @ sample.first_from_camera[3], worlds[3], atol=1e-9)


def test_rooms_are_scenes_of_three_frames(tmp_path):
    pack_folder(tmp_path / 'rooms', 2)
    source = open_(tmp_path / 'rooms')
    assert source.kind == 'rooms' and len(source.scenes) == 4 and (source.height, source.width) == (32, 48)
    frame = source.frame(source.scenes[1], '2')
    assert frame.names[1:] == ['chair', 'oak table'] and set(np.unique(frame.instance)) == {1, 2}
    assert frame.geometry.depth[15, 24] == pytest.approx(2.01, abs=0.02)
    assert len(SceneSampler(source, tmp_path / 'kept').draw(np.random.default_rng(0)).frames) == 3


def remove(path):
    return lambda root: (root / path).unlink()


def test_every_missing_piece_is_one_line(tmp_path):
    raw, processed = f'raw/data/{SCENE}/dslr/', f'processed/{SCENE}/dslr/'

    def break_json(path, change):
        def do(root):
            value = json.loads((root / path).read_text())
            change(value)
            (root / path).write_text(json.dumps(value))

        return do

    def shrink_depth(root):
        cv2.imwrite(str(root / processed / 'undistorted_depths/DSC00000.png'), np.ones((10, 10), np.uint16))

    cases = {
        'list of scenes at': remove('raw/splits/nvs_sem_train.txt'),
        'names no scene': lambda root: (root / 'raw/splits/nvs_sem_train.txt').write_text('303745abc7\n'),
        'train_test_lists.json: it is part of the ScanNet': remove(raw + 'train_test_lists.json'),
        'transforms.json cannot be read': lambda root: (root / raw / 'nerfstudio/transforms.json').write_text(
            '{'
        ),
        'transforms_undistorted.json: it is what the undistortion': remove(
            processed + 'nerfstudio/transforms_undistorted.json'
        ),
        "'fl_x' is missing": break_json(
            processed + 'nerfstudio/transforms_undistorted.json', lambda v: v.pop('fl_x')
        ),
        'lacks the pose of DSC00000.JPG': break_json(
            processed + 'nerfstudio/transforms_undistorted.json', lambda v: v['frames'].pop(0)
        ),
        'no image at': remove(processed + 'undistorted_images/DSC00000.JPG'),
        'no depth picture at': remove(processed + 'undistorted_depths/DSC00000.png'),
        '10x10 px, its image 120x90': shrink_depth,
        'has 1 usable frames': break_json(
            raw + 'train_test_lists.json', lambda v: v.update(train=['DSC00000.JPG'])
        ),
    }
    for number, (said, damage) in enumerate(cases.items()):
        root = tmp_path / str(number)
        write_scannetpp(root, count=2)
        damage(root)
        with pytest.raises(ValueError) as error:
            ScanNetPP(root, height=32, width=32).frame(SCENE, ScanNetPP(root).frames(SCENE)[0])
        assert said in str(error.value) and '\n' not in str(error.value), (said, error.value)
    (tmp_path / 'empty').mkdir()
    for folder, said in (('empty', 'no layout that is known'), ('none', 'no folder at')):
        with pytest.raises(ValueError, match=said):
            open_(tmp_path / folder)
