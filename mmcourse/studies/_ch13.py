"""What the studies of chapter 13 share: the shipped model, its untrained twin, rows of one shape."""
from functools import cache

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.experiments.aligned import Rows, described, drawn, one_kind
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import Vocabulary

READ = 66                               # the place of `<text>` after a picture: from there on the model answers


@cache
def shipped() -> Transformer:
    """The shipped transformer."""
    return checkpoints.load("transformer")


@cache
def twin(seed: int) -> Transformer:
    """The same transformer with the weights it began with: untrained."""
    torch.manual_seed(1300 + seed)
    return Transformer(**shipped().config).eval()


@cache
def tokenizers() -> tuple:
    """The shipped text and picture tokenizers, and the one vocabulary."""
    return (checkpoints.load("bpe"), checkpoints.load("vqvae"),
            Vocabulary(**checkpoints.manifest()["transformer"]["vocabulary"]))


@cache
def rows(way: str, n: int, split: str, seed: int, sign: bool = False) -> Rows:
    """`n` scenes of one kind, `described` or `drawn`: the same scenes either way."""
    scenes = one_kind(np.random.default_rng((1300, seed)), n, split, sign)
    return {"described": described, "drawn": drawn}[way](*tokenizers(), scenes)


def made_with(*names: str) -> dict[str, str]:
    """Which checkpoints a table was measured with."""
    return {name: checkpoints.identity(name)[:8] for name in names}
