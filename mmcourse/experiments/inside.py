"""Tools to look inside a transformer and to change what is found there (chapter 13).

Sources: activation patching, Vig et al. 2020 (2004.12265) and Meng et al. 2022 (2202.05262); attention knock-out, Geva et al.
2023 (2304.14767); the logit lens, nostalgebraist 2020.
"""
import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn


@contextlib.contextmanager
def looking(model: nn.Module, look: Callable) -> Iterator[None]:
    """While the block lasts, `look(name, x)` is called with what each part of a model puts
    out: (B, T, C) or other. What it returns takes the place of x; None leaves it.

    Names are those of `model.named_modules()`; `embed` is what enters the first block.
    """
    def before(block, given):
        return look("embed", given[0])

    def after(name):
        return lambda part, given, out: look(name, out)
    hooks = [model.blocks[0].register_forward_pre_hook(before)]
    hooks += [part.register_forward_hook(after(name)) for name, part in model.named_modules() if name]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def stream(model: nn.Module) -> list[str]:
    """The names of the residual stream: before the first block, and after each."""
    return ["embed", *(f"blocks.{i}" for i in range(len(model.blocks)))]


@torch.no_grad()
def states(model: nn.Module, *given, names: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
    """One run, and what the parts of these names put out; by default the residual stream,
    each (B, T, C)."""
    names, seen = stream(model) if names is None else names, {}
    check_names(model, names)

    def look(name, x):
        if name in names:
            seen[name] = x
    with looking(model, look):
        model(*given)
    return seen


@torch.no_grad()
def patched(model: nn.Module, given, donor: dict[str, torch.Tensor], places=slice(None)):
    """One run in which states are another run's: those that `donor` names, at `places`
    (a slice, or a list of positions). Returns what the model then puts out."""
    check_names(model, donor)

    def look(name, x):
        if name in donor:
            x = x.clone()
            x[:, places] = donor[name][:, places]
            return x
    with looking(model, look):
        return model(given)


def check_names(model: nn.Module, names) -> None:
    """ValueError for a part that a model does not have."""
    there = {"embed", *(name for name, _ in model.named_modules())}
    for name in names:
        if name not in there:
            raise ValueError(f"the model has no part {name!r}: it has, for instance, {', '.join(stream(model)[:3])}, "
                             "blocks.0.attention, blocks.0.mlp")


# ---------------------------------------------------------------- who looks at whom

def attend(attention: nn.Module, x: torch.Tensor, blocked: torch.Tensor | None = None):
    """What a layer of causal attention does, written out: x (B, T, C) -> what it puts out
    (B, T, C), and how each token shares its look (B, heads, T, T).

    `blocked` (T, T) or (B, 1, T, T), bool: where row t is true, token t may not look.
    """
    B, T, C = x.shape
    heads = attention.heads
    q, k, v = (attention.qkv(x).view(B, T, 3, heads, C // heads)
               .permute(2, 0, 3, 1, 4))                             # (B, heads, T, C / heads) each
    scores = q @ k.transpose(-1, -2) * (C // heads) ** -0.5         # (B, heads, T, T)
    hidden = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
    hidden = hidden if blocked is None else hidden | blocked
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return attention.out((weights @ v).transpose(1, 2).reshape(B, T, C)), weights


@torch.no_grad()
def attention_of(model: nn.Module, *given) -> torch.Tensor:
    """How every token shares its look among those before it: (layers, B, heads, T, T)."""
    read = states(model, *given, names=[f"blocks.{i}.norm1" for i in range(len(model.blocks))])
    return torch.stack([attend(block.attention, x)[1] for block, x in zip(model.blocks, read.values())])


@contextlib.contextmanager
def cut(model: nn.Module, blocked: torch.Tensor, layers: Sequence[int] | None = None) -> Iterator[None]:
    """While the block lasts, tokens may not look where `blocked` (T, T) is true, in these
    layers (default: all). Shorter sequences use its upper left corner."""
    def again(attention, given, out):
        T = given[0].shape[1]
        if T > len(blocked):
            raise ValueError(f"the sequence has {T} tokens, and `blocked` is for {len(blocked)}")
        return attend(attention, given[0], blocked[:T, :T])[0]
    chosen = range(len(model.blocks)) if layers is None else layers
    hooks = [model.blocks[i].attention.register_forward_hook(again) for i in chosen]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def no_look(length: int, readers: Sequence[int], read: Sequence[int]) -> torch.Tensor:
    """(length, length), true where a reader would look at one of `read`; itself it may
    always see."""
    blocked = torch.zeros(length, length, dtype=torch.bool)
    readers, read = (torch.tensor(list(places), dtype=torch.long) for places in (readers, read))
    blocked[readers[:, None], read] = True
    return blocked.fill_diagonal_(False)
