"""One concept in several modalities: retrieval from one to the other, and directions that steer (chapter 13).

Sources: steering by a difference of means, Turner et al. 2023 (2308.10248), Rimsky et al. 2023 (2312.06681).
"""
import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from mmcourse.experiments.inside import looking, states, stream
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import Segment, Vocabulary


def concept_states(model: Transformer, vocabulary: Vocabulary,
                   segments: Sequence[Segment]) -> dict[str, torch.Tensor]:
    """What a model makes of segments, each alone: the mean over its content tokens of every
    state of the residual stream, (N, C) each."""
    found = {name: [] for name in stream(model)}
    for segment in segments:
        row = torch.tensor([vocabulary.pack([segment])])
        for name, x in states(model, row).items():
            found[name].append(x[0, 1:-1].mean(0))                      # (T, C) -> (C,)
    return {name: torch.stack(each) for name, each in found.items()}


def retrieval(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Whether each row of a (N, C) finds its own among the rows of b (N, C): the nearest by
    cosine, after each side has lost its mean (N,)."""
    a, b = (F.normalize(x - x.mean(0), dim=1) for x in (a, b))
    return (a @ b.T).argmax(1) == torch.arange(len(a))


def mean_difference(x: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """From all others to those that are `chosen` (N,): a difference of means, (C,)."""
    return x[chosen].mean(0) - x[~chosen].mean(0)


@contextlib.contextmanager
def steered(model: Transformer, name: str, vector: torch.Tensor) -> Iterator[None]:
    """While the block lasts, `vector` (C,) is added to a state of every token of a prompt;
    tokens that come one by one, as in generation with a cache, stay as they are."""
    def look(part, x):
        if part == name and x.shape[1] > 1:
            return x + vector
    with looking(model, look):
        yield
