"""RGB-D folders in the TUM layout: association by stamps, poses, intrinsics, distortion, every missing
piece.
"""

import cv2
import numpy as np
import pytest
from support.drawn_room import CAMERA, assert_consistent, assert_true, poses, write_tum

from gsemsplat_ros.datasets.frames import Cut
from gsemsplat_ros.datasets.sources import SceneSampler, open_source
from gsemsplat_ros.datasets.tum import FREIBURG, Folders, read_intrinsics


@pytest.fixture
def folder(tmp_path):
    write_tum(tmp_path / 'desk')
    return tmp_path / 'desk'


def test_images_depths_and_poses_meet_by_their_stamps(folder):
    source = open_source(folder, 'train', 64, 64)
    assert source.kind == 'rgbd' and source.scenes == ('desk',)
    names = source.frames('desk')
    assert names[0] == '1305031102.175304' and len(names) == 4
    frames = [source.frame('desk', name) for name in names]
    for frame, pose in zip(frames, poses(4)):
        np.testing.assert_allclose(frame.geometry.world_from_camera, pose, atol=2e-6)
        assert frame.geometry.camera == Cut.of(CAMERA, 64, 64).camera
        assert_true(frame, pose)
    for a, b in ((0, 1), (3, 1)):
        assert_consistent(frames[a], frames[b])


def test_what_comes_too_late_is_left_out(folder):
    lines = (folder / 'depth.txt').read_text().splitlines()
    stamp, path = lines[3].split()  # the second frame's
    lines[3] = f'{float(stamp) + 0.05:.6f} {path}'
    (folder / 'depth.txt').write_text('\n'.join(lines))
    assert len(open_source(folder, 'train', 32, 32).frames('desk')) == 3
    (folder / 'groundtruth.txt').write_text('1.0 0 0 0 0 0 0 1\n')
    with pytest.raises(ValueError, match='0 frames whose image, depth and pose lie within 0.02 s'):
        open_source(folder, 'train', 32, 32).frames('desk')


def test_a_folder_of_scenes_and_their_samples(tmp_path):
    for name in ('b', 'a'):
        write_tum(tmp_path / name, 5)
    source = open_source(tmp_path, 'train', 32, 48)
    assert source.scenes == ('a', 'b')
    drawn = [SceneSampler(source, tmp_path / 'kept').draw(np.random.default_rng(seed)) for seed in range(6)]
    assert {sample.frames[0].scene for sample in drawn} == {'a', 'b'}
    assert drawn[0].frames[4].image.shape == (32, 48, 3)


def test_intrinsics_of_the_benchmark_and_of_a_file(tmp_path, folder):
    for name, said in FREIBURG.items():
        sequence = tmp_path / f'rgbd_dataset_{name}_desk'
        sequence.mkdir()
        assert read_intrinsics(sequence) == said
    (folder / 'intrinsics.txt').write_text('70 72 61.3 43.2 0.2 -0.1 0.001 0.002 0.0\n')
    distorted = Folders(folder, 90, 120)
    name = distorted.frames('desk')[0]
    plain = cv2.imread(str(folder / 'rgb' / f'{name}.png'))[..., ::-1]
    K = CAMERA.K
    wanted = cv2.undistort(np.ascontiguousarray(plain), K, np.array([0.2, -0.1, 0.001, 0.002, 0.0]))
    cut = Cut.of(CAMERA, 90, 120)
    found = distorted.frame('desk', name).image.astype(int)  # OpenCV's own rounds places to 1/32 px
    assert np.abs(found - cut.image(wanted)).max() < 8 and np.abs(found - cut.image(wanted)).mean() < 0.2
    assert np.abs(wanted.astype(int) - plain).max() > 5  # it moved something


def test_long_videos_are_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr('gsemsplat_ros.datasets.tum.MOST', 3)
    stamps = write_tum(tmp_path / 'long', 7)
    assert open_source(tmp_path, 'train', 32, 32).frames('long') == (stamps[0], stamps[3], stamps[6])


@pytest.mark.parametrize(
    'name, content, said',
    [
        ('intrinsics.txt', None, 'no .*intrinsics.txt: wanted one line'),
        ('intrinsics.txt', '70 72 61', 'holds 3 numbers'),
        ('groundtruth.txt', None, 'no .*groundtruth.txt: wanted rgb.txt, depth.txt, groundtruth.txt'),
        ('groundtruth.txt', 'stamp x y', 'begin with a time stamp'),
        ('groundtruth.txt', '1305031102.18 0 0 0\n1305031102.51 1 2 3\n', "'0 0 0', wanted tx ty tz"),
        ('depth.txt', '# nothing\n', 'names nothing'),
        ('depth/1305031102.182304.png', None, 'no depth picture at'),
        ('rgb/1305031102.175304.png', None, 'no image at .*1305031102.175304.png'),
    ],
)
def test_every_missing_piece_is_one_line(folder, name, content, said):
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(ValueError, match=said) as error:
        source = open_source(folder, 'train', 32, 32)
        source.frame('desk', source.frames('desk')[0])
    assert '\n' not in str(error.value)
