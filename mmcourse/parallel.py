"""Many tokens in one pass, and the same answer as one at a time (chapter 12).

The tokens to come are guessed, one pass looks at all of them, and those that the model would have
chosen itself stay. Sources: Stern et al. 2018 (blockwise parallel decoding), Song et al. 2021 and
Santilli et al. 2023 (Jacobi iteration), Leviathan et al. 2023 (drafts by a small net); the dice are
thrown before, as in Gumbel-max sampling (Gumbel 1954).
"""
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.transformer import KVCache, Transformer
from mmcourse.vocabulary import Segment


def race(probabilities: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Draw from probabilities (..., V) with noise (..., V) that was thrown before: (...).

    Entry i arrives after an exponential time of rate p_i, so it wins with probability p_i.
    """
    return (probabilities / noise).argmax(-1)


def throw_dice(steps: int, batch: int, vocab: int,
               generator: torch.Generator | None = None) -> torch.Tensor:
    """Exponential noise (B, steps, V) for all tokens to come, as `torch.multinomial` would
    throw it step by step."""
    return torch.stack([
        torch.empty(batch, vocab, dtype=torch.double).exponential_(generator=generator)
        for _ in range(steps)], 1)


def rewind(cache: KVCache, tokens: int) -> None:
    """Forget the last `tokens` tokens of a cache, all of them of the segment that is open.
    """
    for layer in cache.layers:
        layer.filled -= tokens
    cache.last_position = cache.last_position - tokens


class WindowLogits:
    """The logits at the last `window` places, given the tokens up to there, with guidance
    as in `NextLogits`; what turns out wrong is forgotten again (`forget`).

    `passes`, `tokens`: what went through the model.
    """

    def __init__(self, model: Transformer, batch: int, guidance: float = 1.0):
        self.model, self.guidance = model, guidance
        self.caches = [KVCache(model, batch) for _ in range(1 if guidance == 1 else 2)]
        self.passes = self.tokens = 0

    def __call__(self, new: torch.Tensor, window: int) -> torch.Tensor:
        """New tokens (B, T), the first time with the prompt -> logits after the last
        `window` of them (B, window, V), on the CPU."""
        conditional = self._after(0, new, window)
        if self.guidance == 1:
            return conditional
        unconditional = self._after(1, new[:, -window:], window)  # no prompt
        return unconditional + self.guidance * (conditional - unconditional)

    def _after(self, i: int, new: torch.Tensor, window: int) -> torch.Tensor:
        self.passes, self.tokens = self.passes + 1, self.tokens + new.numel()
        hidden = self.model.hidden(new.to(self.model.device), self.caches[i])
        return self.model.head(hidden[:, -window:]).cpu()

    def forget(self, tokens: int) -> None:
        """The last `tokens` tokens were wrong."""
        for cache in self.caches:
            rewind(cache, tokens)


def as_found(guess: torch.Tensor, settled: int) -> torch.Tensor:
    """The draft of Jacobi iteration: what the model itself said last, right or wrong."""
    return guess


def continue_at_once(logits_of: Callable, ids: torch.Tensor, choose: Callable,
                     guess: torch.Tensor, window: int,
                     draft: Callable = as_found) -> torch.Tensor:
    """The answer (B, N) that would come one token at a time, in fewer passes.

    Args:
        logits_of: a `WindowLogits`.
        ids: prompts (B, T), the token that opens the answer included.
        choose: logits (B, W, V) of the places `first`, `first` + 1, ... -> tokens (B, W).
        guess: what the answer may be (B, N). window: how many places a pass looks at.
        draft: asked before each pass, `draft(guess, settled)` -> a guess (B, N) whose
            first `settled` tokens are those that are sure.
    """
    new, settled = ids, 0
    while settled < guess.shape[1]:
        guess = draft(guess.clone(), settled)
        W = min(window, guess.shape[1] - settled)
        asked = guess[:, settled:settled + W - 1]
        found = choose(logits_of(torch.cat([new, asked], 1), W), settled)  # (B, W)
        # after a wrong guess nothing is sure: kept is what follows right ones, in all rows
        right = int((found[:, :-1] == asked).int().cumprod(1).sum(1).min())
        guess[:, settled:settled + W] = found
        logits_of.forget(W - 1 - right)
        settled += right + 1
        new = guess[:, settled - 1:settled]
    return guess


class Draft:
    """Guesses the rest of a picture from its caption and what is painted of it, in one
    pass of a small `TokenPainter` that sees all places at once (chapter 08).

    Args:
        painter: that net. prompts: prompts that end with a text.
        temperature, noise: those of who checks the guess, (B, N, codes), so that both
            draw alike. start: the id of code 0 there.
    """

    def __init__(self, painter: nn.Module, prompts: Sequence[Sequence[Segment]],
                 temperature: float = 0.0, noise: torch.Tensor | None = None,
                 start: int = 0):
        self.painter, self.start = painter, start
        self.temperature, self.noise = temperature, noise
        self.captions = torch.tensor([caption_ids(prompt[-1].ids, painter.trunk.prompt)
                                      for prompt in prompts],
                                     device=painter.head.weight.device)

    @torch.no_grad()
    def __call__(self, guess: torch.Tensor, settled: int) -> torch.Tensor:
        """Ids (B, N), the first `settled` of them sure -> the same, the others guessed."""
        hidden = torch.arange(guess.shape[1]) >= settled
        known = (guess - self.start).masked_fill(hidden, self.painter.codes)
        known = known.to(self.captions.device)
        logits = self.painter(known, self.captions).cpu()  # (B, N, codes)
        if self.temperature == 0:
            found = logits.argmax(-1)
        else:
            found = race((logits.double() / self.temperature).softmax(-1), self.noise)
        return torch.where(hidden, found + self.start, guess)


def caption_ids(ids: Sequence[int], room: int) -> list[int]:
    """Text ids as a painter reads them: moved up by one, 0 where nothing is said; what has
    no room is cut off."""
    ids = [i + 1 for i in ids[:room]]
    return ids + [0] * (room - len(ids))


def draft_loss(painter: nn.Module, captions: torch.Tensor,
               ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats of what is not yet painted: captions (B, P), pictures (B, N),
    of which nothing is known in half of the rows, and the beginning in the others."""
    some = torch.rand(len(ids), 1) < 0.5
    known = torch.randint(ids.shape[1], (len(ids), 1)) * some
    hidden = (torch.arange(ids.shape[1]) >= known).to(ids.device)  # (B, N)
    logits = painter(ids.masked_fill(hidden, painter.codes), captions)
    return F.cross_entropy(logits[hidden], ids[hidden])
