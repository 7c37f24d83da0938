"""`gsemsplat train words`: the context-aware branch of the small network, from packaged networks.

Nothing is trained: both networks are read from their packages, and the linear code of their scores is fitted
to what they say about pictures without labels (context_code.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.licences import ROLES, inherited, not_stated, stated, united
from gsemsplat_ros.files import digest
from gsemsplat_ros.images.image_file import read_image
from gsemsplat_ros.images.view import View, fit, network_size
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.context import ContextBranch
from gsemsplat_ros.network.pixels import to_tensor
from gsemsplat_ros.semantics import class_words
from gsemsplat_ros.semantics.class_words import class_weights
from gsemsplat_ros.semantics.lexicon import Lexicon
from gsemsplat_ros.semantics.text import MINILM
from gsemsplat_ros.supervision.teacher import load_classifier, load_detector
from gsemsplat_ros.training.context_code import ContextCode, fit_code

# networks inside the checkpoint that nothing here trained, with their licences
FROZEN = {
    'stem': 'EfficientNet-Lite0, ImageNet (Apache-2.0)',
    'context.classifier': 'EfficientNet-Lite2, ImageNet (Apache-2.0)',
    'context.detector': 'NanoDet by RangiLyu, COCO (Apache-2.0)',
}
BRANCH, DECODER = 'context.', weights.DECODERS[1] + '.'  # begin the names of the tensors that are made
SUFFIXES = '.jpg', '.jpeg', '.png'
POOLED = 2  # side of the blocks of scores that count as one, which makes the fit four times cheaper


def make_branch(
    checkpoint: Path,
    classifier: Path,
    detector: Path,
    images: Path,
    out: Path,
    done: Callable[[int, int], None] = lambda number, count: None,
) -> dict:
    """Write `checkpoint` to `out` with a new context branch and decoder, its other tensors bit for bit.

    classifier: .pth file; detector: folder (supervision/teacher.py); images: folder of pictures; done: called
    after each with its number and their count. Returns what the card says of the branch, 'context'.

    Raises ValueError: a checkpoint without such a branch, other packages, no or unreadable pictures.
    """
    file, card = weights.opened(checkpoint)
    # files of before this branch do not name the width of its code
    config = NetworkConfig.from_json({'context_dim': NetworkConfig.small().context_dim, **card['config']})
    spaces = MINILM, class_words.NAME
    if not config.stem or card.get('text_encoder') not in spaces:
        raise ValueError(
            f'{checkpoint} is the network {config.name!r} in the text space {card.get("text_encoder")!r}: '
            f'wanted a small network in {" or ".join(spaces)}, as `gsemsplat train` makes'
        )
    pictures = pictures_in(images)
    branch = packaged_branch(config.context_dim, classifier, detector)
    scores = []
    for number, picture in enumerate(pictures, 1):
        scores.append(scores_of(branch, picture, config.long_side))
        done(number, len(pictures))
    try:
        code = fit_code(scores, household_words(), config.context_dim)
    except ValueError as error:
        raise ValueError(f'{images}: {error}') from None
    packages = [classifier, detector / 'nanodet.json', detector / 'nanodet.bin']
    about = {'images': len(pictures), 'packages_sha256': {path.name: digest(path) for path in packages}}
    kept = {
        name: tensor.read() for name, tensor in file.tensors.items() if not name.startswith((BRANCH, DECODER))
    }
    if card['text_encoder'] != class_words.NAME:
        card.pop('mixture', None)  # its numbers are of other features
    pictured = not_stated(images.name, 'context code', 'the user', f'scores of {len(pictures)} pictures')
    kept_roles = [role for role in ROLES if role != 'context code']
    card['licences'] = united(
        [pictured],
        stated('efficientnet-lite2', 'nanodet', 'minilm'),
        inherited(checkpoint.name, card, kept_roles),
    )
    card |= {'config': config.to_json(), 'text_encoder': class_words.NAME, 'frozen': FROZEN, 'context': about}
    weights.save(out, {**kept, **weights.stored(tensors_of(branch, code))}, card)
    return about


def pictures_in(folder: Path) -> list[Path]:
    """JPEG and PNG files in `folder`, by name. Raises ValueError for fewer than two."""
    if not folder.is_dir():
        raise ValueError(f'no folder {folder}: wanted one of pictures (JPEG or PNG)')
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(found) < 2:
        raise ValueError(
            f'{folder} holds {len(found)} pictures (JPEG or PNG): wanted a hundred or so of what a camera '
            'sees, at least 2'
        )
    return found


def packaged_branch(dim: int, classifier: Path, detector: Path) -> ContextBranch:
    """A branch with the packaged networks as a checkpoint stores them, in 8 bits, and no code yet. Raises
    ValueError."""
    branch = ContextBranch(dim).eval().requires_grad_(False)
    load_classifier(branch.classifier, classifier)
    load_detector(branch.detector, detector)
    for network in (branch.classifier, branch.detector):
        network.load_state_dict(weights.from_8_bits(weights.in_8_bits(network.state_dict())))
    return branch.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stubs lack it


@torch.inference_mode()
def scores_of(branch: ContextBranch, picture: Path, long_side: int) -> Tensor:
    """The scores (1080, P), in half precision, of a picture fitted to the network's input. Raises
    ValueError."""
    image = read_image(picture)
    view = fit(View(image), *network_size(image.shape[1], image.shape[0], long_side)).view
    return F.avg_pool2d(branch.scores(to_tensor(view.image)[None]), POOLED)[0].flatten(1).half()


def household_words() -> Tensor:
    """Class weights (W, 1080) of the household words that have a class."""
    rows = np.stack([class_weights(entry) for entry in Lexicon.load().entries])
    return torch.from_numpy(rows[rows.any(1)])


def tensors_of(branch: ContextBranch, code: ContextCode) -> dict[str, Tensor]:
    """The branch with its code, and the context decoder, under their names in a checkpoint."""
    branch.slope.copy_(code.slope[:, None, None])
    branch.offset.copy_(code.offset[:, None, None])
    branch.code.load_state_dict({'weight': code.encoder[:, :, None, None], 'bias': code.encoder_bias})
    return {
        **{BRANCH + name: tensor for name, tensor in branch.state_dict().items()},
        DECODER + '0.weight': code.decoder[:, :, None, None],
        DECODER + '0.bias': code.decoder_bias,
    }
