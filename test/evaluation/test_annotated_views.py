"""The published folder: what is read from it, and one line for every piece that is missing or does not
fit.
"""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.annotated_views import SIDE, rings, write_annotation, write_eval

from gsemsplat_ros.evaluation.annotated_views import (
    annotation_files,
    find_scenes,
    read_cameras,
    read_features,
    read_view,
)

NAME = 'frame_00003'


@pytest.fixture(scope='module')
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp('eval')
    return write_eval(folder / 'eval', folder / 'scannetpp')


@pytest.fixture
def scene(pristine, tmp_path):
    """A copy that may be spoilt."""
    return Path(shutil.copytree(pristine, tmp_path / 'eval' / pristine.name))


def change(scene, edit, name=f'{NAME}.json'):
    """Edit a JSON file of a scene in place."""
    path = scene / name
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_what_a_scene_holds(scene):
    assert find_scenes(scene.parent) == [scene] == find_scenes(scene)
    [path] = annotation_files(scene)
    frame = read_view(path)
    assert (frame.scene, frame.name) == (scene.name, NAME) and frame.image.shape == (SIDE, SIDE, 3)
    assert frame.phrases == ('wall', 'storage box', 'floor') and frame.dropped == ('piano',)
    assert 0.3 < frame.visible.mean() < 1 and frame.visible.dtype == bool
    assert frame.rendering is None and frame.features is None
    inputs = read_cameras(scene, frame)
    assert inputs.first.camera.width == SIDE and inputs.camera.width == SIDE
    between = np.linalg.inv(inputs.first.map_from_camera) @ inputs.second.map_from_camera
    shift = np.linalg.norm(between[:3, 3])
    assert shift == pytest.approx(0.7, abs=0.01), 'frames 1 and 3 stand two steps of 35 cm apart'
    assert np.linalg.norm(inputs.first_from_camera[:3, 3]) == pytest.approx(shift / 2, rel=0.05), (
        'the view is between them'
    )


def test_polygons_of_one_category_are_kept_together(scene):
    square = [[1, 1], [9, 1], [9, 9]]
    change(scene, lambda content: content['objects'].append({'category': 'wall', 'segmentation': square}))
    before = len(
        [
            None
            for thing in json.loads((scene / f'{NAME}.json').read_text())['objects']
            if thing['category'] == 'wall'
        ]
    )
    assert len(read_view(scene / f'{NAME}.json').polygons['wall']) == before >= 2


@pytest.mark.parametrize(
    'text, names',
    [
        ('wall\nfloor\n', ('wall', 'floor')),
        ('wall, floor,wall\r\n\n', ('wall', 'floor')),
        ("['wall', 'floor']", ('wall', 'floor')),
        ('"wall"\n storage box \n', ('wall', 'storage box')),
    ],
)
def test_queries(scene, text, names):
    (scene / 'queries.txt').write_text(text)
    assert read_view(scene / f'{NAME}.json').queries == names


def test_masks_by_name_number_or_alone(scene):
    mask = read_view(scene / f'{NAME}.json').visible
    for name in (f'mask_{NAME}.npy', 'mask_3.npy', 'mask_dslr.npy'):
        for old in scene.glob('mask_*'):
            old.unlink()
        np.save(scene / name, mask.astype(np.uint8))
        np.testing.assert_array_equal(read_view(scene / f'{NAME}.json').visible, mask)


def test_features_of_each_view_and_of_the_only_one(scene):
    wanted = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 4)).astype(np.float16)
    np.save(scene / 'restored_feat.npy', wanted)
    np.testing.assert_array_equal(read_features(read_view(scene / f'{NAME}.json'), scene), wanted)
    write_annotation(
        scene,
        'frame_00007',
        json.loads((scene / f'{NAME}.json').read_text())['objects'],
        np.zeros((SIDE, SIDE, 3), np.uint8),
    )
    np.save(scene / 'mask_00007.npy', np.ones((SIDE, SIDE), bool))
    with pytest.raises(ValueError, match='belongs to one of them.*restored_feat_frame_00003.npy'):
        read_features(read_view(scene / f'{NAME}.json'), scene)
    np.savez(scene / 'restored_feat_frame_00007.npz', feat=wanted)
    np.testing.assert_array_equal(read_features(read_view(scene / 'frame_00007.json'), scene), wanted)


def write(name, content):
    def apply(scene):
        (scene / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return apply


def save(name, array):
    def apply(scene):
        for old in scene.glob(name.partition('_')[0] + '_*.npy'):
            old.unlink()
        np.save(scene / name, array)

    return apply


def remove(name):
    return lambda scene: (scene / name).unlink()


def info(key, value):
    return lambda scene: change(scene, lambda content: content['info'].__setitem__(key, value))


def thing(key, value):
    return lambda scene: change(scene, lambda content: content['objects'][0].__setitem__(key, value))


def without(key):
    return lambda scene: change(scene, lambda content: content.pop(key))


SMALL = np.zeros((SIDE, SIDE - 2), bool)


@pytest.mark.parametrize(
    'spoil, words',
    [
        (remove(f'{NAME}.jpg'), f'no image at .*{NAME}.jpg'),
        (write(f'{NAME}.jpg', 'no picture'), 'cannot be read as an image'),
        (
            lambda scene: cv2.imwrite(str(scene / f'{NAME}.jpg'), np.zeros((SIDE, 40, 3))),
            'has 40 x 64 px: its annotation says',
        ),
        (
            lambda scene: cv2.imwrite(str(scene / f'render_{NAME}.jpg'), np.zeros((40, 40, 3))),
            f'render_{NAME}.jpg has 40 x 40 px',
        ),
        (remove('queries.txt'), 'no queries at .*queries.txt: wanted'),
        (write('queries.txt', ' \n,\n'), 'holds no name'),
        (write('queries.txt', b'\xff\xfe\x00'), 'cannot be read as text'),
        (write('queries.txt', 'x' * 300), 'name of more than 200'),
        (write('queries.txt', 'piano'), 'none of the queries .piano. is annotated; annotated are floor'),
        (remove('mask_00003.npy'), r'no one visibility mask for frame_00003 \(found: none\)'),
        (save('mask_00003.npy', SMALL), r'is bool \(64, 62\): wanted \(64, 64\) bool'),
        (save('mask_00003.npy', np.array([{}])), 'cannot be read as an array of numbers'),
        (save('mask_00003.npy', np.full((SIDE, SIDE), 'x')), 'is <U1'),
        (write('mask_00003.npy', ''), 'cannot be read as an array of numbers'),
        (write('mask_00003.npy', b'\x93NUMPY\x01\x00v\x00{'), 'cannot be read as an array of numbers'),
        (write(f'{NAME}.json', '{"info": '), 'cannot be read as JSON'),
        (write(f'{NAME}.json', '[' * 100000), 'cannot be read as JSON'),
        (write(f'{NAME}.json', '[]'), r'the content is \[\]: wanted an object with "info"'),
        (without('objects'), 'objects is missing'),
        (info('width', 64.5), 'info.width is 64.5: wanted a whole number'),
        (info('height', '64'), 'info.height is "64": wanted a positive number'),
        (info('width', 10**400), 'info.width is 1000.*: wanted a positive number'),
        (info('height', 30), 'wanted sides above 30'),
        (thing('category', 7), r'objects\[0\].category is 7: wanted words'),
        (thing('segmentation', [[1, 2], [3, 4]]), r'objects\[0\].segmentation is .*: wanted a polygon'),
        (thing('segmentation', [[1, 2], [3, 4], [5]]), 'wanted 3 rows of 2 numbers'),
        (
            thing('segmentation', [[1, 2], [3, 4], [5, 'a']]),
            r'segmentation\[2\]\[1\] is "a": wanted a number',
        ),
        (thing('segmentation', [[1, 2], [3, 4], [5, 1e9]]), 'wanted pixels within 30000'),
    ],
)
def test_every_missing_piece_is_one_line(scene, spoil, words):
    spoil(scene)
    with pytest.raises(ValueError, match=words) as caught:
        read_view(scene / f'{NAME}.json')
    assert '\n' not in str(caught.value) and str(scene) in str(caught.value)


@pytest.mark.parametrize(
    'array, words',
    [
        (
            np.zeros((2, SIDE, SIDE - 1, 4), np.float32),
            r'is float32 \(2, 64, 63, 4\): wanted floats \(2, 64, 64, C\)',
        ),
        (np.zeros((2, SIDE, SIDE, 4), int), 'is int64'),
        (np.zeros((3, SIDE, SIDE, 4)), 'wanted floats'),
    ],
)
def test_features_that_do_not_fit(scene, array, words):
    np.save(scene / 'restored_feat.npy', array)
    with pytest.raises(ValueError, match=words):
        read_features(read_view(scene / f'{NAME}.json'), scene)


def test_no_features_and_damaged_ones(scene):
    frame = read_view(scene / f'{NAME}.json')
    with pytest.raises(
        ValueError, match='has no saved features of frame_00003: wanted restored_feat_frame_00003.npy'
    ):
        read_features(frame, scene)
    (scene / 'restored_feat.npz').write_bytes(b'PK\x03\x04 no archive')
    with pytest.raises(ValueError, match='cannot be read as an array'):
        read_features(read_view(scene / f'{NAME}.json'), scene)


def camera(edit):
    return lambda scene: change(scene, edit, 'cameras.json')


@pytest.mark.parametrize(
    'spoil, words',
    [
        (camera(lambda c: c.pop('context')), 'context is missing'),
        (camera(lambda c: c['context'].pop()), 'context is .*: wanted the two input images'),
        (
            camera(lambda c: c['context'][0].__setitem__('image', 'no.png')),
            r'context\[0\].image: no image at .*no.png',
        ),
        (
            camera(lambda c: c['context'][1].__setitem__('K', [[1, 2], [3, 4]])),
            r'context\[1\].K is .*: wanted 3 rows of 3',
        ),
        (
            camera(lambda c: c['context'][1]['K'][0].__setitem__(0, -5)),
            r'context\[1\].K is .*: wanted \[\[fx, 0, cx\]',
        ),
        (camera(lambda c: c['frames'].clear()), 'frames.frame_00003 is missing'),
        (
            camera(lambda c: c['frames'][NAME]['world_from_camera'][0].__setitem__(0, 3)),
            'wanted a rigid motion',
        ),
    ],
)
def test_cameras_that_do_not_fit(scene, spoil, words):
    frame = read_view(scene / f'{NAME}.json')
    spoil(scene)
    with pytest.raises(ValueError, match=words) as caught:
        read_cameras(scene, frame)
    assert '\n' not in str(caught.value) and 'cameras.json' in str(caught.value)


def test_no_scene(tmp_path):
    for path, words in ((tmp_path / 'no', 'no folder'), (tmp_path, 'holds no scene')):
        with pytest.raises(ValueError, match=words):
            find_scenes(path)


def test_outlines_give_the_mask_back():
    """The fixture's own polygons: what is drawn from them is what they were drawn around."""
    from gsemsplat_ros.evaluation.published import fill

    mask = np.zeros((40, 50), bool)
    mask[5:20, 10:30], mask[25:38, 2:12] = True, True
    np.testing.assert_array_equal(fill(rings(mask), 40, 50), mask)
