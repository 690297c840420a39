"""What the heads of an `EpisodeNet` look at (chapter 10), and what is left without one of them."""
import contextlib
from collections.abc import Iterator, Sequence

import torch

from mmcourse.experiments.inside import attention_of
from mmcourse.in_context import EpisodeNet


@torch.no_grad()
def attention_maps(net: EpisodeNet, *parts) -> torch.Tensor:
    """Attention of each head, (R, layers, heads, T, T): row t says how step t shares its look among steps 0 ... t.

    The steps are left, right, left, right, ...: pair j has the steps 2 j and 2 j + 1. (Its own attention does not give
    this away: `inside.attend` writes it out.)
    """
    return attention_of(net, *parts).transpose(0, 1)


def prefix_matching(maps: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The prefix-matching score of each head (Olsson et al. 2022): (layers, heads).

    The share of the query's look that falls on the right halves of the examples of its own class: on what came after
    the step that it resembles.

    Args: maps (R, layers, heads, T, T), as `attention_maps` has them. classes (R, P): what the left halves are alike in.
    """
    matches = (classes[:, :-1] == classes[:, -1:]).to(maps.dtype)       # (R, P - 1)
    look = maps[:, :, :, -2, 1:-2:2]                                    # (R, layers, heads, P - 1): on right halves
    return (look * matches[:, None, None]).sum(-1).mean(0)


@contextlib.contextmanager
def without(net: EpisodeNet, heads: Sequence[tuple[int, int]]) -> Iterator[EpisodeNet]:
    """The net while some heads, (layer, head) each, say nothing. ValueError for a head that it lacks."""
    hooks = []
    for layer, head in heads:
        if not 0 <= layer < len(net.blocks) or not 0 <= head < net.blocks[layer].attention.heads:
            raise ValueError(f"there is no head {head} in layer {layer}: the net has {len(net.blocks)} layers of "
                             f"{net.blocks[0].attention.heads} heads, counted from 0")

    def silence(head):
        def hook(linear, inputs):
            x = inputs[0].clone()
            size = x.shape[-1] // net.config["heads"]
            x[..., head * size:(head + 1) * size] = 0
            return (x,)
        return hook
    try:
        hooks += [net.blocks[layer].attention.out.register_forward_pre_hook(silence(head)) for layer, head in heads]
        yield net
    finally:
        for hook in hooks:
            hook.remove()
