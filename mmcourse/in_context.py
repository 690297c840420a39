"""A net that learns from examples (chapter 10): it reads an episode in steps, a whole picture or sound in each.

Sources: many tokens as one step of the large net, Yu et al. 2023 (MegaByte, 2305.07185); heads that find the example
that matches, Olsson et al. 2022 (2209.11895).
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.transformer import Block


class TokenChunk(nn.Module):
    """A picture as one step: its tokens' vectors side by side, through one matrix. And
    back: a step as the logits of all its tokens at once."""

    def __init__(self, tokens: int, codes: int, width: int, depth: int = 32):
        super().__init__()
        self.shape = tokens, depth
        self.embed = nn.Embedding(codes, depth)
        self.read = nn.Linear(tokens * depth, width)
        self.write = nn.Linear(width, tokens * depth)
        self.head = nn.Linear(depth, codes)
        nn.init.normal_(self.read.weight, std=2 * (tokens * depth) ** -0.5)    # loud enough

    def forward(self, ids):
        x = self.embed(ids).flatten(-2)                     # (..., tokens * depth)
        return self.read(x)                                 # (..., width)

    def answer(self, x):
        x = F.gelu(self.write(x)).unflatten(-1, self.shape)  # (..., tokens, depth)
        return self.head(x)                                  # (..., tokens, codes)


class VectorChunk(nn.Module):
    """A sound as one step: (..., frames, dim) numbers, of which the first says whether
    there is any sound. And back: a step as such numbers."""

    def __init__(self, frames: int, dim: int, width: int):
        super().__init__()
        self.shape = frames, dim
        self.read = nn.Linear(frames * dim, width)
        self.write = nn.Linear(width, 2 * width)
        self.head = nn.Linear(2 * width, frames * dim)
        nn.init.normal_(self.read.weight, std=2 * (frames * dim) ** -0.5)

    def forward(self, values):
        return self.read(values.flatten(-2))

    def answer(self, x):
        x = self.head(F.gelu(self.write(x)))
        return x.unflatten(-1, self.shape)                              # (..., frames, dim)


class EpisodeNet(nn.Module):
    """Reads pairs, and says after the left half of each what its right half is.

    A half is ("words", ids) with ids (R, P, W), whose vectors are added up, or ("chunk",
    x): x is (R, P, tokens) for pictures, (R, P, frames, dim) for sounds. A part is (left
    half, right half); an episode is one part or several, one after the other.

    Args:
        words: how many there are. pairs: the most that fit, the query among them.
        chunk: (tokens, codes) of a picture, or (frames, dim) of a sound.
        sound: which of the two it is.
        loud: the size of the words at first, beside tags and kinds of size 1.
        in_order: whether pairs wear their tags in order in training too.
    """

    def __init__(self, words: int, chunk: Sequence[int] = (16, 512), sound: bool = False,
                 width: int = 128, layers: int = 2, heads: int = 2, pairs: int = 16,
                 loud: float = 1.0, in_order: bool = False):
        super().__init__()
        self.config = {"words": words, "chunk": list(chunk), "sound": sound, "width": width,
                       "layers": layers, "heads": heads, "pairs": pairs, "loud": loud,
                       "in_order": in_order}
        self.pairs, self.in_order = pairs, in_order
        self.words, self.kind = nn.Embedding(words, width), nn.Embedding(2, width)
        self.chunk = (VectorChunk if sound else TokenChunk)(*chunk, width)
        self.tag = nn.Embedding(pairs, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.say = nn.LayerNorm(width), nn.Linear(width, words)
        with torch.no_grad():
            self.words.weight.mul_(loud)

    def step(self, half):
        """A half as vectors (R, P, width): what is in it, and of which kind it is."""
        kind, x = half
        if kind == "words":
            x = self.words(x).sum(-2)                       # (R, P, W) -> (R, P, width)
            return x + self.kind.weight[0]
        return self.chunk(x) + self.kind.weight[1]

    def tags(self, rows: int, pairs: int):
        """What both halves of a pair wear, and no other pair does: (R, P, width). In
        training any of the tags, so that all are known when there are more pairs."""
        check_pairs(pairs, self.pairs)
        order = torch.arange(self.pairs).expand(rows, -1)
        if self.training and not self.in_order:
            order = torch.rand(rows, self.pairs).argsort(1)
        return self.tag(order[:, :pairs].to(self.tag.weight.device))

    def reply(self, half, x):
        """What a step says of a half: logits (R, P, words) or (R, P, tokens, codes), or
        (R, P, frames, dim)."""
        return self.say(x) if half[0] == "words" else self.chunk.answer(x)

    def hidden(self, *parts):
        """What the net makes of each part: (R, P, 2, width), after the left halves and
        after the right ones."""
        halves = [torch.stack([self.step(half) for half in part], 2) for part in parts]
        steps = torch.cat(halves, 1)                                # (R, P, 2, width)
        x = steps + self.tags(*steps.shape[:2])[:, :, None]
        x = x.flatten(1, 2)                                         # (R, 2 P, width)
        for block in self.blocks:
            x = block(x)
        sizes = [part.shape[1] for part in halves]
        return self.norm(x).view_as(steps).split(sizes, 1)

    def forward(self, *parts):
        """The answers: of each part what its right halves are, said after the left ones."""
        return [self.reply(right, x[:, :, 0])
                for (_, right), x in zip(parts, self.hidden(*parts))]

    def with_echo(self, *parts):
        """The answers, and as echoes what the right halves are, said after them: who is to
        copy a picture must be able to say what it has just read."""
        both = [(right, x) for (_, right), x in zip(parts, self.hidden(*parts))]
        return ([self.reply(right, x[:, :, 0]) for right, x in both],
                [self.reply(right, x[:, :, 1]) for right, x in both])


def check_pairs(pairs: int, most: int) -> None:
    """ValueError that says how many fit."""
    if not 0 < pairs <= most:
        raise ValueError(f"an episode has 1 to {most} pairs, the query among them, so {most - 1} examples fit; "
                         f"got {pairs} pairs: leave out {pairs - most}" if pairs > most else
                         "an episode is empty: it needs a query at least")
