"""Exercises of chapter 05: the causal mask, one head of attention, and the probabilities that are sampled from."""
import math

import torch

from mmcourse.exercises import register
from mmcourse.generate import filter_logits

# ---------------------------------------------------------------- who may look at whom

def causal_mask(T: int) -> torch.Tensor:
    """(T, T) bool: True where token i (row) may look at token j (column), which is itself and all before it."""
    return torch.ones(T, T, dtype=torch.bool).tril()


def _not_at_itself(T):
    return torch.ones(T, T, dtype=torch.bool).tril(-1)


def _at_the_future(T):
    return torch.ones(T, T, dtype=torch.bool).triu()


def _at_everything(T):
    return torch.ones(T, T, dtype=torch.bool)


def _as_numbers(T):
    return torch.ones(T, T).tril()


@register("05.causal_mask", reference=causal_mask, minutes=3, difficulty=1,
          wrong=[_not_at_itself, _at_the_future, _at_everything, _as_numbers],
          hint="torch.ones(T, T, dtype=torch.bool) and one method of tensors: tril or triu.")
def check_causal_mask(fn):
    for T in (1, 4, 7):
        got = fn(T)
        assert isinstance(got, torch.Tensor) and got.dtype == torch.bool, f"for T={T}: give a bool tensor back, not {got!r}"
        assert got.shape == (T, T), f"for T={T} the shape must be ({T}, {T}), but it is {tuple(got.shape)}"
        for i in range(T):
            for j in range(T):
                may = "may" if j <= i else "must not"
                assert bool(got[i, j]) == (j <= i), f"for T={T}: token {i} {may} look at token {j}"


# ---------------------------------------------------------------- one head

def attention_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """One causal head: q, k, v (T, d) -> (T, d)."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    return scores.masked_fill(~causal_mask(len(q)), -math.inf).softmax(dim=1) @ v


def _no_scale(q, k, v):
    return (q @ k.T).masked_fill(~causal_mask(len(q)), -math.inf).softmax(dim=1) @ v


def _no_mask(q, k, v):
    return (q @ k.T / math.sqrt(q.shape[1])).softmax(dim=1) @ v


def _over_columns(q, k, v):
    scores = (q @ k.T / math.sqrt(q.shape[1])).masked_fill(~causal_mask(len(q)), -math.inf)
    return scores.softmax(dim=0) @ v


def _mask_after_softmax(q, k, v):
    return ((q @ k.T / math.sqrt(q.shape[1])).softmax(dim=1) * causal_mask(len(q))) @ v


@register("05.attention_head", reference=attention_head, minutes=8, difficulty=2,
          wrong=[_no_scale, _no_mask, _over_columns, _mask_after_softmax],
          hint="Four steps: scores = q @ k.T, divide by the root of d, masked_fill the future with -inf, softmax over each row.")
def check_attention_head(fn):
    for T, d in ((1, 3), (4, 8), (9, 2)):
        q, k, v = torch.randn(T, d) * 2, torch.randn(T, d) * 2, torch.randn(T, d)
        got = fn(q, k, v)
        assert isinstance(got, torch.Tensor) and got.shape == (T, d), f"for T={T}, d={d}: give a tensor of shape ({T}, {d}) back"
        for t in range(T):
            scores = [float(q[t] @ k[s]) / math.sqrt(d) for s in range(t + 1)]
            total = sum(math.exp(s - max(scores)) for s in scores)
            wanted = sum(math.exp(s - max(scores)) / total * v[i] for i, s in enumerate(scores))
            assert torch.allclose(got[t], wanted, atol=1e-4), (
                f"for T={T}, d={d}: output {t} is {[round(x, 3) for x in got[t].tolist()]}, but it must be "
                f"{[round(x, 3) for x in wanted.tolist()]} (softmax over the {t + 1} scores that token {t} may see)")


# ---------------------------------------------------------------- what is sampled from

def probabilities(logits: torch.Tensor, temperature: float, top_k: int) -> torch.Tensor:
    """(B, V) logits -> (B, V) probabilities of the `top_k` likeliest tokens at a temperature above 0; the others have 0."""
    return filter_logits(logits / temperature, top_k).softmax(-1)


def _times_temperature(logits, temperature, top_k):
    return filter_logits(logits * temperature, top_k).softmax(-1)


def _temperature_after_softmax(logits, temperature, top_k):
    return filter_logits(logits, top_k).softmax(-1) / temperature


def _does_not_sum_to_one(logits, temperature, top_k):
    chances = (logits / temperature).softmax(-1)
    return chances * (chances >= chances.topk(top_k, dim=-1).values[:, -1:])


def _zero_is_not_impossible(logits, temperature, top_k):
    scaled = logits / temperature
    return torch.where(scaled >= scaled.topk(top_k, dim=-1).values[:, -1:], scaled, 0.0).softmax(-1)


def _top_k_of_the_batch(logits, temperature, top_k):
    scaled = logits / temperature
    return scaled.masked_fill(scaled < scaled.flatten().topk(top_k).values[-1], -math.inf).softmax(-1).nan_to_num()


@register("05.probabilities", reference=probabilities, minutes=6, difficulty=2,
          wrong=[_times_temperature, _temperature_after_softmax, _does_not_sum_to_one, _zero_is_not_impossible,
                 _top_k_of_the_batch],
          hint="Divide, find the k-th largest of each row with topk, put -inf below it, then softmax.")
def check_probabilities(fn):
    for temperature, top_k in ((1.0, 5), (0.5, 5), (2.0, 3), (0.7, 1)):
        logits = torch.tensor([[2.0, 1.0, 0.5, -1.0, -3.0], [-1.0, 0.0, 4.0, 3.0, -2.0]])
        got, case = fn(logits.clone(), temperature, top_k), f"for temperature {temperature}, top_k {top_k}"
        assert isinstance(got, torch.Tensor) and got.shape == logits.shape, f"{case}: give a tensor of the logits' shape back"
        for row, wanted in zip(got.tolist(), logits.tolist()):
            kept = sorted(wanted, reverse=True)[:top_k]
            weights = [math.exp(x / temperature) if x in kept else 0.0 for x in wanted]
            wanted = [w / sum(weights) for w in weights]
            assert all(abs(a - b) < 1e-4 for a, b in zip(row, wanted)), (
                f"{case}: the probabilities must be {[round(x, 3) for x in wanted]}, but they are {[round(x, 3) for x in row]}")
