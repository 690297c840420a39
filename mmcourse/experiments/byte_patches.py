"""Text as bytes in patches: a small net reads bytes, a larger one patches of them. Where should a patch end (chapter 12)?

Source: Pagnoni et al. 2024 (Byte Latent Transformer): a patch ends where a small model of bytes is unsure of what comes.
"""
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.bpe import BPETokenizer
from mmcourse.transformer import Block, Transformer
from mmcourse.world.corpus import prose
from mmcourse.world.rules import unit_hash

LENGTH = 256                            # bytes of a row
CHUNK = 4096                            # bytes that are of one split
BYTES = 256
PIECES = 4096                           # entries of the vocabulary whose pieces are patches, too
WAYS = ("surprise", "pieces", "stride", "thrown", "bytes")


# ---------------------------------------------------------------- text

@cache
def chunks(split: str) -> tuple[bytes, ...]:
    """The prose of one split (`train`, `validation`: a tenth, `test`: a tenth) in stretches of `CHUNK` bytes.

    What is not ASCII in it becomes a question mark. ValueError for a split that there is not.
    """
    if split not in ("train", "validation", "test"):
        raise ValueError(f"a split is train, validation or test, got {split!r}")
    text = prose().encode("ascii", "replace")

    def side(i: int) -> str:
        where = unit_hash("byte patches", i)
        return "test" if where < 0.1 else "validation" if where < 0.2 else "train"
    return tuple(text[i:i + CHUNK] for i in range(0, len(text) - CHUNK + 1, CHUNK) if side(i) == split)


def rows(split: str) -> list[bytes]:
    """All that a split has, in rows of `LENGTH` bytes."""
    return [chunk[i:i + LENGTH] for chunk in chunks(split) for i in range(0, CHUNK, LENGTH)]


def random_rows(rng: np.random.Generator, n: int, split: str = "train") -> list[bytes]:
    """`n` random rows of `LENGTH` bytes."""
    every, at = chunks(split), rng.integers(CHUNK - LENGTH + 1, size=n)
    return [every[which][i:i + LENGTH] for which, i in zip(rng.integers(len(every), size=n), at)]


def as_ids(texts: Sequence[bytes]) -> torch.Tensor:
    """Rows of equally many bytes as (B, T) int64."""
    return torch.tensor([list(text) for text in texts])


# ---------------------------------------------------------------- where a patch ends

@torch.no_grad()
def unsureness(byte_model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    """The entropy in bits of the byte after each one, as a small model sees it: (B, T) -> (B, T)."""
    logs = byte_model(ids.to(byte_model.device)).log_softmax(-1)        # (B, T, 256)
    return -(logs.exp() * logs).sum(-1).cpu() / math.log(2)


def ends_of_pieces(tokenizer: BPETokenizer, texts: Sequence[bytes]) -> torch.Tensor:
    """Which bytes end a piece of a BPE vocabulary: (B, T) bool."""
    out = torch.zeros(len(texts), len(texts[0]), dtype=torch.bool)
    for row, text in zip(out, texts):
        lengths = [len(tokenizer.tokens[i]) for i in tokenizer.encode(text.decode("ascii"))]
        row[torch.tensor(lengths).cumsum(0) - 1] = True
    return out


class Cutter:
    """Says where patches end, in five ways that cut equally often (but for `bytes`, a patch each).

    `surprise`: where `byte_model` is more unsure of the next byte than `threshold` bits; `pieces`: where a piece of `tokenizer`
    ends; `stride`: every `length` bytes; `thrown`: by dice.
    """

    def __init__(self, byte_model: Transformer, tokenizer: BPETokenizer, sample: Sequence[bytes]):
        self.byte_model, self.tokenizer = byte_model, tokenizer
        share = ends_of_pieces(tokenizer, sample).float().mean()
        self.length = 1 / float(share)                                  # bytes a patch
        unsure = torch.cat([unsureness(byte_model, as_ids(sample[i:i + 64])) for i in range(0, len(sample), 64)])
        self.threshold = float(unsure.flatten().quantile(1 - share))

    def __call__(self, way: str, texts: Sequence[bytes], rng: np.random.Generator) -> torch.Tensor:
        """Rows of bytes -> which of them end a patch (B, T) bool. ValueError for a way that there is not."""
        ids = as_ids(texts)
        if way == "surprise":
            return unsureness(self.byte_model, ids) > self.threshold
        if way == "pieces":
            return ends_of_pieces(self.tokenizer, texts)
        if way == "stride":
            done = (torch.arange(ids.shape[1] + 1) / self.length).floor()
            return (done.diff() > 0).expand(ids.shape)
        if way == "thrown":
            return torch.from_numpy(rng.random(ids.shape) < 1 / self.length)
        if way == "bytes":
            return torch.ones_like(ids, dtype=torch.bool)
        raise ValueError(f"a way to cut is one of {', '.join(WAYS)}, got {way!r}")


# ---------------------------------------------------------------- the net

class PatchNet(nn.Module):
    """Bytes in patches -> the logits of the next byte. A block reads bytes; the state of each patch's last byte goes through a
    trunk of wider blocks, which works once a patch; then another block knows what it found in the patches that are complete.

    Args:
        classes: 256, or 512 if the next byte's end of patch has to be said, too.
    """

    def __init__(self, classes: int = BYTES, width: int = 96, wide: int = 192, layers: int = 3, heads: int = 4):
        super().__init__()
        self.byte_embed, self.position_embed = nn.Embedding(BYTES, width), nn.Embedding(LENGTH, width)
        self.patch_position_embed, self.start_embed = nn.Embedding(LENGTH, wide), nn.Parameter(torch.zeros(wide))
        self.reader, self.writer = Block(width, heads), Block(width, heads)
        self.up, self.down = nn.Linear(width, wide), nn.Linear(wide, width)
        self.trunk = nn.Sequential(*(Block(wide, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)
        for layer in (self.byte_embed, self.position_embed, self.patch_position_embed):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, ids: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Bytes (B, T), and which of them end a patch (B, T) bool -> logits (B, T, classes). What is said after a byte depends on
        it, on those before it and on where they end patches."""
        B, T = ids.shape
        x = self.reader(self.byte_embed(ids) + self.position_embed.weight[:T])                   # (B, T, C)
        most = max(1, int(ends.sum(1).max()))
        order = (~ends).int().argsort(dim=1, stable=True)[:, :most]      # (B, P): the last bytes of patches, then some others
        patches = self.up(x.gather(1, order[..., None].expand(B, most, x.shape[2])))
        patches = self.trunk(patches + self.patch_position_embed.weight[:most])                  # (B, P, wide), causal
        patches = torch.cat([self.start_embed.expand(B, 1, -1), patches], 1)
        complete = ends.cumsum(1)[..., None].expand(B, T, patches.shape[2])                     # how many, at each byte
        x = self.writer(x + self.down(patches.gather(1, complete)))
        return self.head(self.norm(x))


def patch_loss(net: PatchNet, ids: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats a byte: ids and ends (B, T)."""
    return F.cross_entropy(net(ids[:, :-1], ends[:, :-1]).flatten(0, 1), targets(net, ids, ends)[:, 1:].flatten())


def targets(net: PatchNet, ids: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """What has to be said of each byte (B, T): the byte, and whether it ends a patch if only what follows decides that."""
    return ids + BYTES * ends if net.head.out_features > BYTES else ids
