"""`gsemsplat train words`: the linear code of the context-aware branch, and the checkpoint that holds it."""

import json

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.semantic_networks import TINY, checkpoint

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.cli import main
from gsemsplat_ros.semantics.lexicon import Lexicon
from gsemsplat_ros.training import context_branch
from gsemsplat_ros.training.context_code import DETECTOR_GAIN, DETECTOR_SHIFT, fit_code

CLASSES, PIXELS = 12, 400


def made_up(pictures=6, classes=CLASSES, pixels=PIXELS, seed=0):
    """Scores of classes that go together, more in some pictures than in others."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(classes, classes, generator=g)
    return [
        mixing @ torch.randn(classes, pixels, generator=g) + 2 * torch.randn(classes, 1, generator=g)
        for _ in range(pictures)
    ]


def counts_of(code, scores):
    return torch.cat([code.slope[:, None] * picture + code.offset[:, None] for picture in scores], 1)


def coded(code, counts):
    return code.encoder @ counts + code.encoder_bias[:, None]


def decoded(code, counts):
    return code.decoder @ coded(code, counts) + code.decoder_bias[:, None]


def test_a_code_as_wide_as_the_classes_keeps_all():
    scores, words = made_up(), torch.eye(CLASSES)[:4]
    code = fit_code(scores, words, CLASSES)
    counts = counts_of(code, scores)
    torch.testing.assert_close(decoded(code, counts), counts, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize('dim', [3, CLASSES])
def test_codes_have_unit_spread_around_what_is_usual(dim):
    scores = made_up()
    code = fit_code(scores, torch.eye(CLASSES)[:4], dim)
    codes = coded(code, counts_of(code, scores))
    torch.testing.assert_close(codes.mean(1), torch.zeros(dim), atol=1e-4, rtol=0)
    torch.testing.assert_close(codes @ codes.T / codes.shape[1], torch.eye(dim), atol=1e-3, rtol=0)


def test_what_words_ask_for_is_kept_better_than_the_rest():
    """A narrow code, classes of equal spread that have nothing to do with each other."""
    g = torch.Generator().manual_seed(1)
    scores = [torch.randn(CLASSES, 2000, generator=g) for _ in range(8)]
    words = torch.zeros(2, CLASSES)
    words[0, 2], words[1, [5, 6]] = 1, 0.5  # one class, and the mean of two
    code = fit_code(scores, words, 2)
    counts = counts_of(code, scores)
    lost = decoded(code, counts) - counts
    usual = counts - counts.mean(1, keepdim=True)
    kept = 1 - (words @ lost).square().mean(1) / (words @ usual).square().mean(1)
    assert kept.min() > 0.98
    others = [i for i in range(CLASSES) if i not in (2, 5, 6)]
    assert (1 - lost[others].square().mean() / usual[others].square().mean()) < 0.05


def test_a_class_counts_against_its_usual_peak():
    scores = made_up(pictures=5, classes=1080, pixels=300)
    code = fit_code(scores, torch.eye(1080)[:3], 16)
    peaks = torch.stack([code.slope * picture.amax(1) + code.offset for picture in scores])
    torch.testing.assert_close(peaks[:, :1000].mean(0), torch.zeros(1000), atol=1e-2, rtol=0)
    torch.testing.assert_close(peaks[:, :1000].std(0), torch.ones(1000), atol=1e-2, rtol=0)
    shift = torch.full((80,), -DETECTOR_GAIN * DETECTOR_SHIFT)
    torch.testing.assert_close(peaks[:, 1000:].mean(0), shift, atol=1e-2, rtol=0)
    torch.testing.assert_close(peaks[:, 1000:].std(0), torch.full((80,), DETECTOR_GAIN), atol=1e-2, rtol=0)


def test_pictures_that_say_too_little_are_refused():
    [one] = made_up(pictures=1)
    with pytest.raises(ValueError, match='score the same for some class'):
        fit_code([one, one], torch.eye(CLASSES)[:4], 3)
    few = [picture[:, :2] for picture in made_up(pictures=2)]
    with pytest.raises(ValueError, match='too few or too plain for a code of 12 channels'):
        fit_code(few, torch.eye(CLASSES)[:4], CLASSES)


def test_household_words_weigh_their_classes():
    words = context_branch.household_words()
    entries = [e for e in Lexicon.load().entries if e.imagenet or e.imagenet_near or e.coco or e.coco_near]
    assert words.shape == (len(entries), 1080)
    row = words[[entry.word for entry in entries].index('keyboard')]
    assert (row[:1000] > 0).any() and row[1000 + 66] > 0  # COCO's keyboard
    assert words[:, :1000].sum(1).max() <= 1 + 1e-6 and words[:, 1000:].sum(1).max() <= 1 + 1e-6


# The command


@pytest.fixture
def photos(tmp_path):
    (tmp_path / 'photos').mkdir()
    for number in range(3):
        small = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        picture = cv2.resize(small, (256, 192), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / 'photos' / ('a.JPG', 'b.png', 'c.jpeg')[number]), picture)
    (tmp_path / 'photos' / 'notes.txt').write_text('no picture')
    return tmp_path / 'photos'


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """The shipped networks in place of those of the packages, whose readers have a test of their own."""
    branch = weights.load(None).model.context
    for kind in ('classifier', 'detector'):
        state = getattr(branch, kind).state_dict()
        monkeypatch.setattr(
            context_branch, f'load_{kind}', lambda network, path, state=state: network.load_state_dict(state)
        )
    (tmp_path / 'models').mkdir()
    for name in ('lite2.pth', 'models/nanodet.json', 'models/nanodet.bin'):
        (tmp_path / name).write_text(name)
    return ['--classifier', str(tmp_path / 'lite2.pth'), '--detector', str(tmp_path / 'models')]


def test_a_checkpoint_gets_its_branch_and_keeps_the_rest(tmp_path, photos, packages, capsys):
    out = tmp_path / 'new.safetensors'
    words = ['train', 'words', str(weights.SHIPPED), *packages, '--images', str(photos), '--out', str(out)]
    assert main([*words, '--json', '--quiet']) == 0
    result = json.loads(capsys.readouterr().out)
    assert result['checkpoint'] == str(out) and result['images'] == 3
    assert result['packages_sha256'].keys() == {'lite2.pth', 'nanodet.json', 'nanodet.bin'}

    made = {'context.slope', 'context.offset', 'context.code.weight', 'context.code.bias'}
    made |= {'language_decoder_patch.0.weight', 'language_decoder_patch.0.bias'}
    with safe_open(weights.SHIPPED, 'pt') as shipped, safe_open(out, 'pt') as new:
        assert new.keys() == shipped.keys()
        for name in new.keys():  # noqa: SIM118  (not a dictionary)
            same = torch.equal(new.get_tensor(name), shipped.get_tensor(name))
            assert same == (name not in made), name

    before, after = weights.load(None), weights.load(out)
    assert after.model.config == before.model.config
    card = after.card
    assert card['context'] == {key: result[key] for key in ('images', 'packages_sha256')}
    assert card['text_encoder'] == 'minilm-l6+imagenet+coco' and card['training'] == before.card['training']
    assert card['frozen'] == context_branch.FROZEN and card['mixture'] == before.card['mixture']
    [pictures] = [each for each in card['licences'] if each['role'] == 'context code']
    assert pictures['licence'] is None and not pictures['commercial']  # only the user knows them

    # a file of before, whose card does not name the width of the code; written onto itself
    config = {key: value for key, value in card['config'].items() if key != 'context_dim'}
    weights.update_card(out, {'config': config, 'text_encoder': 'minilm-l6', 'mixture': {'margin': 0.4}})
    assert main([*words[:2], str(out), *words[3:-2], '--quiet']) == 0
    del card['mixture']  # that of before is of other features
    assert weights.read_card(out) == card


def test_every_mistake_is_one_line(tmp_path, photos, packages, capsys):
    def mistake(start=weights.SHIPPED, packages=packages, images=photos):
        out = tmp_path / 'new.safetensors'
        words = ['train', 'words', start, *packages, '--images', images, '--out', out]
        assert main(list(map(str, words))) == 2
        said = capsys.readouterr().err
        assert said.count('\n') == 1 and not out.exists()
        return said

    assert 'no checkpoint at' in mistake(tmp_path / 'none')
    public = checkpoint(tmp_path / 'public.safetensors', TINY, dim=24, encoder='openclip:tiny')
    assert "is the network 'tiny' in the text space 'openclip:tiny': wanted a small network" in mistake(
        public
    )
    assert 'no folder' in mistake(images=tmp_path / 'none')
    assert 'holds 0 pictures' in mistake(images=tmp_path / 'models')
    (photos / 'd.jpg').write_text('no picture')
    assert 'd.jpg' in mistake()


def test_other_packages_are_refused(tmp_path, photos, capsys):
    words = ['--classifier', tmp_path / 'no.pth', '--detector', tmp_path, '--images', photos]
    words += ['--out', tmp_path / 'new.safetensors']
    assert main(['train', 'words', str(weights.SHIPPED), *map(str, words), '--quiet']) == 2
    assert 'is no EfficientNet-Lite2' in capsys.readouterr().err
