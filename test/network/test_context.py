"""The context-aware branch: counts of classes, their code, and pictures of sizes that its networks do not
divide.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.network import context
from gsemsplat_ros.network.config import CLASSES
from gsemsplat_ros.network.context import evenly
from gsemsplat_ros.network.nanodet import OBJECTS
from gsemsplat_ros.semantics.class_words import mixture
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.lexicon import Lexicon

DATA = Path(__file__).parents[1] / 'data'


@pytest.fixture(scope='module')
def shipped():
    return weights.load()


@pytest.fixture(scope='module')
def branch(shipped):
    return shipped.model.context


def tensor(image):
    return torch.from_numpy(np.asarray(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def sign():
    """A drawn stop sign (1, 3, 96, 128)."""
    with np.load(DATA / 'nanodet_96x128.npz') as file:
        return tensor(file['image'])


def room():
    """A real picture (1, 3, 384, 512)."""
    from gsemsplat_ros.datasets.demo_pairs import load_scene
    from gsemsplat_ros.images.view import fit

    try:
        return tensor(fit(load_scene('desk').pair.first, 512, 384).view.image)
    except ValueError as error:
        pytest.skip(str(error))


def household():
    """(W, 1080) weights of the classes of all household words that have any."""
    rows = [
        np.concatenate((mixture(CLASSES, e.imagenet, e.imagenet_near), mixture(OBJECTS, e.coco, e.coco_near)))
        for e in Lexicon.load().entries
    ]
    return torch.from_numpy(np.stack([row for row in rows if row.any()]))


@torch.no_grad()
def test_counts_are_scores_on_one_grid_each_by_its_own_line(branch):
    """Classifier cells are means of 3 x 3 neighbours that exist; a COCO name has the highest score of the
    three strides; both are at stride 8."""
    image = sign()
    classes = branch.classifier(image)[0]
    near = torch.stack([classes[:, :2, :2].mean((1, 2)), classes[:, :, :3].mean((1, 2))])
    found, objects = branch.logits(image)
    torch.testing.assert_close(
        torch.stack((found[0, :, 0, 0], found[0, :, 1, 1])), near, atol=1e-4, rtol=1e-4
    )
    levels = [F.interpolate(x, (12, 16), mode='bilinear') for x in branch.detector(image)]
    torch.testing.assert_close(objects, torch.maximum(torch.maximum(*levels[:2]), levels[2]))
    counts = branch(image)
    assert counts.shape == (1, 1080, 12, 16)
    spread = F.interpolate(found, (12, 16), mode='bilinear')
    for channel, plain in ((3, spread[0, 3]), (999, spread[0, 999]), (1011, objects[0, 11])):
        slope, offset = branch.slope[channel], branch.offset[channel]
        torch.testing.assert_close(counts[0, channel], slope * plain + offset, atol=1e-4, rtol=1e-4)
    probabilities = branch.probabilities(image)
    plain = (found[0, :, 1, 2].double() / context.TEMPERATURE).exp()
    torch.testing.assert_close(probabilities[0, :, 1, 2].double(), plain / plain.sum(), atol=1e-6, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('picture, rms, correlation', [(sign, 1.2, 0.97), (room, 0.6, 0.99)])
def test_the_code_gives_the_counts_of_words_back(shipped, picture, rms, correlation):
    """Errors of words' counts, which spread by 3: measured 0.60 and 0.26 (rms)."""
    branch, decoders = shipped.model.context, Decoders.from_state_dict(shipped.decoders)
    counts = branch(picture())
    code = branch.code(counts)
    assert code.shape[1] == shipped.model.config.context_dim
    back = decoders.language_decoder_patch(code)
    words, again = (torch.einsum('kc,chw->khw', household(), x[0]) for x in (counts, back))
    assert words.std() > 2.5 and (words - again).square().mean().sqrt() < rms
    assert torch.corrcoef(torch.stack((words.flatten(), again.flatten())))[0, 1] > correlation
    # what the code carries passes unchanged
    torch.testing.assert_close(branch.code(back), code, atol=0.015, rtol=0)


@pytest.mark.parametrize(
    'size, wanted',
    [((80, 112), (64, 128)), ((336, 512), (320, 512)), ((16, 16), (32, 32)), ((96, 64), (96, 64))],
)
def test_sides_become_multiples_of_32(size, wanted):
    images = torch.rand(1, 3, *size)
    found = evenly(images)
    assert found.shape[-2:] == wanted and (found is images) == (size == wanted)
    assert all(abs(a - b) <= 16 for a, b in zip(size, wanted))
    if size != wanted:
        torch.testing.assert_close(found, F.interpolate(images, wanted, mode='bilinear', align_corners=False))


@torch.no_grad()
def test_a_picture_of_another_size_has_counts_at_the_same_places(shipped):
    """A stop sign on a picture that 32 does not divide: its counts cover the whole picture, and its codes lie
    on the pixels' grid."""
    model, image = shipped.model, F.interpolate(sign(), (112, 144), mode='bilinear', align_corners=False)
    encoding = model.encode(image)
    assert encoding.context.shape == (1, 1080, 16, 16)  # (112, 144) became (128, 128)
    stop = F.interpolate(encoding.context[:, CLASSES + 11 : CLASSES + 12], (112, 144), mode='bilinear')[0, 0]
    row, column = np.unravel_index(int(stop.argmax()), stop.shape)
    assert abs(row - 36 * 112 / 96) < 12 and abs(column - 64 * 144 / 128) < 12  # the sign's centre
    codes = model(image, image).first.codes
    assert codes.shape == (1, 56, 72, model.config.code_dim)
    wide = F.interpolate(model.context.code(encoding.context), (56, 72), mode='bilinear', align_corners=False)
    torch.testing.assert_close(codes[..., 16:], wide.permute(0, 2, 3, 1), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_the_branch_can_be_left_out(shipped):
    model, image = shipped.model, sign()
    whole, without = model.encode(image), model.encode(image, context=False)
    assert whole.context is not None and without.context is None
    torch.testing.assert_close(without.tokens, whole.tokens, atol=1e-5, rtol=1e-5)
    prediction, short = model(image, image), model(image, image, context=False)
    assert short.first.codes.shape == (1, 48, 64, 16)
    torch.testing.assert_close(short.first.codes, prediction.first.codes[..., :16], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(short.second.means, prediction.second.means, atol=1e-4, rtol=1e-4)
