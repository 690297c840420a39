"""Depth that adapts: what a model would say after each of its blocks, and whether it may stop there (chapter 12).

Sources: Belrose et al. 2023 (a matrix carries a state to where the last block would have left it: the tuned lens), Schuster et
al. 2022 (leave early, and copy the state to the blocks above), Elhoushi et al. 2024 (drafts from the model's own first blocks).
"""
import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.parallel import rewind
from mmcourse.transformer import KVCache, Transformer


@torch.no_grad()
def layer_states(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    """The residual stream after each block: ids (B, T) -> (layers, B, T, C)."""
    states = []
    hooks = [block.register_forward_hook(lambda block, given, out: states.append(out)) for block in model.blocks]
    try:
        model.hidden(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(states)


class ExitHeads(nn.Module):
    """For each block of a model but the last: a matrix that carries a state from there to where the last block would leave it,
    and a gate, which knows whether the model would then say what it says in the end. The model itself stays as it is."""

    def __init__(self, width: int, layers: int, hidden: int = 32):
        super().__init__()
        self.moves = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.gates = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))
                                   for _ in range(layers - 1))
        for move in self.moves:                                         # at first a state is left where it is
            nn.init.zeros_(move.weight)
            nn.init.zeros_(move.bias)

    def say(self, model: Transformer, i: int, x: torch.Tensor) -> torch.Tensor:
        """What the model would say after block `i`: states (..., C) -> logits (..., V)."""
        return model.head(model.norm(x + self.moves[i](x)))

    def sure(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """The chance that it would not change its mind: states (..., C) -> (...)."""
        return self.gates[i](x)[..., 0].sigmoid()


def exit_loss(heads: ExitHeads, model: Transformer, states: torch.Tensor) -> dict:
    """States (layers, N, C) -> how far what is said early is from what is said in the end (Kullback-Leibler, nats), and how wrong
    the gates are about it, summed over the exits."""
    with torch.no_grad():
        last = model.head(model.norm(states[-1]))                       # (N, V)
    far, wrong = 0.0, 0.0
    for i, x in enumerate(states[:-1]):
        said = heads.say(model, i, x)
        far = far + F.kl_div(said.log_softmax(-1), last.log_softmax(-1), log_target=True, reduction="batchmean")
        agrees = (said.argmax(-1) == last.argmax(-1)).float()
        wrong = wrong + F.binary_cross_entropy_with_logits(heads.gates[i](x)[:, 0], agrees)
    return {"loss": far + wrong, "far": far, "wrong": wrong}


# ---------------------------------------------------------------- leave, and go on

class Leaving(nn.Module):
    """A block in a model whose newest token may leave early: once it has left it goes through unchanged, and only its keys and
    values are made, so that later tokens can look at it."""

    def __init__(self, block: nn.Module, i: int, heads: ExitHeads, threshold: float, shared: dict):
        super().__init__()
        self.block, self.i, self.heads, self.threshold, self.shared = block, i, heads, threshold, shared

    def forward(self, x: torch.Tensor, cache=None) -> torch.Tensor:
        layers = len(self.heads.moves) + 1
        if self.i == 0:
            self.shared["left after"] = torch.full((len(x),), layers, device=x.device)
        after = self.shared["left after"]                               # (B,): blocks that the newest token goes through
        out = self.block(x, cache)
        newest = torch.where((after <= self.i)[:, None], x[:, -1], out[:, -1])                  # (B, C)
        if self.i < layers - 1:
            go = (after == layers) & (self.heads.sure(self.i, newest) >= self.threshold)
            after[go] = self.i + 1
        else:
            self.shared["log"].append(after)
            for i, move in enumerate(self.heads.moves):
                newest = torch.where((after == i + 1)[:, None], newest + move(newest), newest)
        return torch.cat([out[:, :-1], newest[:, None]], 1)


def with_exits(model: Transformer, heads: ExitHeads, threshold: float) -> tuple[Transformer, list[torch.Tensor]]:
    """The same model, whose newest token leaves as soon as a gate is sure; and a list, to which each pass adds how many blocks
    the newest token of each row went through (B,). Of a prompt only the last token may leave."""
    shared = {"log": []}
    blocks = nn.ModuleList(Leaving(block, i, heads, threshold, shared) for i, block in enumerate(model.blocks))
    return _with(model, blocks=blocks), shared["log"]


def _with(model: Transformer, **modules: nn.Module) -> Transformer:
    """A model that shares all but some modules with another."""
    net = copy.copy(model)
    net._modules = {**model._modules, **modules}
    return net


# ---------------------------------------------------------------- drafts from the model's own first blocks

class Moved(nn.Module):
    """A state and what a matrix adds to it."""

    def __init__(self, move: nn.Module):
        super().__init__()
        self.move = move

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.move(x)


def shallow(model: Transformer, heads: ExitHeads, layers: int) -> Transformer:
    """The model's first `layers` blocks, and what it would say after them."""
    return _with(model, blocks=model.blocks[:layers], norm=nn.Sequential(Moved(heads.moves[layers - 1]), model.norm))


class ShallowDraft:
    """Guesses the next tokens one after another with a small net that has read what is settled: a draft for `continue_at_once`.

    Args:
        net: that net. ids: prompts (B, T), the token that opens the answer included.
        choose: as in `continue_at_once`. window: how many places a pass of the model looks at.
    """

    def __init__(self, net: Transformer, ids: torch.Tensor, choose: Callable, window: int):
        self.net, self.ids, self.choose, self.window = net, ids, choose, window
        self.cache, self.passes = KVCache(net, len(ids)), 0

    @torch.no_grad()
    def __call__(self, guess: torch.Tensor, settled: int) -> torch.Tensor:
        """Ids (B, N), the first `settled` of them sure -> the same, the next `window` - 1 guessed."""
        known = torch.cat([self.ids, guess[:, :settled]], 1)            # (B, T + settled)
        new = known[:, self.cache.length:]
        for place in range(settled, min(settled + self.window, guess.shape[1]) - 1):
            hidden = self.net.hidden(new.to(self.net.device), self.cache)
            logits = self.net.head(hidden[:, -1:]).cpu()                                        # (B, 1, V)
            new = guess[:, place:place + 1] = self.choose(logits, place)
            self.passes += 1
        rewind(self.cache, max(0, self.cache.length - known.shape[1]))
        return guess
