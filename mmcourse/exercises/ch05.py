"""Exercises of chapter 05: counting pairs, the causal mask, one head, rotary positions, sampling."""
import math

import torch

from mmcourse.exercises import register
from mmcourse.generate import filter_logits

# ---------------------------------------------------------------- predicting by counting

def bigram(before: torch.Tensor, after: torch.Tensor, V: int) -> torch.Tensor:
    """Pairs (n,) and (n,) -> (V, V) probabilities, a row for each token before; 0.01 is
    added to every count."""
    table = torch.full((V, V), 0.01)
    table.index_put_((before, after), torch.ones(len(before)), accumulate=True)
    return table / table.sum(1, keepdim=True)


def _each_pair_once(before, after, V):
    table = torch.full((V, V), 0.01)
    table[before, after] += 1
    return table / table.sum(1, keepdim=True)


def _what_came_before(before, after, V):
    return bigram(after, before, V)


def _of_all_pairs(before, after, V):
    table = torch.full((V, V), 0.01).index_put_((before, after), torch.ones(len(before)), accumulate=True)
    return table / table.sum()


def _nothing_added(before, after, V):
    table = torch.zeros(V, V).index_put_((before, after), torch.ones(len(before)), accumulate=True)
    return table / table.sum(1, keepdim=True).clamp(min=1)


@register("05.bigram", reference=bigram, minutes=6, difficulty=1,
          wrong=[_each_pair_once, _what_came_before, _of_all_pairs, _nothing_added],
          hint="Start from torch.full((V, V), 0.01); index_put_ with accumulate=True counts; divide by the "
               "sum of each row.")
def check_bigram(fn):
    before, after, V = [0, 0, 0, 1, 2, 2], [1, 1, 3, 2, 0, 0], 4
    got = fn(torch.tensor(before), torch.tensor(after), V)
    assert isinstance(got, torch.Tensor) and got.shape == (V, V), (
        f"for V={V}: give a tensor of shape ({V}, {V}) back")
    for i in range(V):
        for j in range(V):
            count, total = sum((a, b) == (i, j) for a, b in zip(before, after)), before.count(i)
            wanted = (count + 0.01) / (total + 0.01 * V)
            assert abs(float(got[i, j]) - wanted) < 1e-4, (
                f"token {j} came {count} times after token {i}, which came {total} times: the probability "
                f"must be {wanted:.4f}, but it is {float(got[i, j]):.4f}")


# ---------------------------------------------------------------- who may look at whom

def causal_mask(T: int) -> torch.Tensor:
    """(T, T) bool: True where token i (row) may look at token j (column), which is itself
    and all before it."""
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
        assert isinstance(got, torch.Tensor) and got.dtype == torch.bool, (
            f"for T={T}: give a bool tensor back, not {got!r}")
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
          hint="Four steps: scores = q @ k.T, divide by the root of d, masked_fill the future with -inf, "
               "softmax over each row.")
def check_attention_head(fn):
    for T, d in ((1, 3), (4, 8), (9, 2)):
        q, k, v = torch.randn(T, d) * 2, torch.randn(T, d) * 2, torch.randn(T, d)
        got = fn(q, k, v)
        assert isinstance(got, torch.Tensor) and got.shape == (T, d), (
            f"for T={T}, d={d}: give a tensor of shape ({T}, {d}) back")
        for t in range(T):
            scores = [float(q[t] @ k[s]) / math.sqrt(d) for s in range(t + 1)]
            total = sum(math.exp(s - max(scores)) for s in scores)
            wanted = sum(math.exp(s - max(scores)) / total * v[i] for i, s in enumerate(scores))
            assert torch.allclose(got[t], wanted, atol=1e-4), (
                f"for T={T}, d={d}: output {t} is {[round(x, 3) for x in got[t].tolist()]}, but it must be "
                f"{[round(x, 3) for x in wanted.tolist()]} (softmax over the {t + 1} scores that token {t} "
                "may see)")


# ---------------------------------------------------------------- where a token stands

def rotate(x: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al., 2021): turn (..., T, d) by position; frequencies (d / 2,) in
    radians a token."""
    angles = torch.arange(x.shape[-2])[:, None] * frequencies
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


def _all_by_one_angle(x, frequencies):
    return rotate(x, frequencies[:1].expand(len(frequencies)))


def _not_by_position(x, frequencies):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * frequencies.cos() - b * frequencies.sin(),
                      a * frequencies.sin() + b * frequencies.cos()], -1)


def _a_mirror(x, frequencies):
    angles = torch.arange(x.shape[-2])[:, None] * frequencies
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angles.cos() + b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


def _from_one(x, frequencies):
    return rotate(torch.cat([x[..., :1, :], x], -2), frequencies)[..., 1:, :]


@register("05.rotate", reference=rotate, minutes=10, difficulty=2,
          wrong=[_all_by_one_angle, _not_by_position, _a_mirror, _from_one],
          hint="angles = torch.arange(T)[:, None] * frequencies; a, b = x.chunk(2, dim=-1); turn each pair; "
               "torch.cat(..., -1).")
def check_rotate(fn):
    for shape in ((4, 2), (5, 6), (2, 3, 7, 4)):
        x, half = torch.randn(shape), shape[-1] // 2
        frequencies = 0.3 / torch.arange(1, half + 1)
        got = fn(x.clone(), frequencies)
        assert isinstance(got, torch.Tensor) and got.shape == x.shape, (
            f"for x of shape {shape}: give the same shape back")
        flat, turned = x.reshape(-1, *shape[-2:]), got.reshape(-1, *shape[-2:])
        for t in range(shape[-2]):
            for i in range(half):
                a, b, angle = float(flat[0, t, i]), float(flat[0, t, half + i]), t * float(frequencies[i])
                wanted = (a * math.cos(angle) - b * math.sin(angle),
                          a * math.sin(angle) + b * math.cos(angle))
                mine = (float(turned[0, t, i]), float(turned[0, t, half + i]))
                assert max(abs(p - q) for p, q in zip(mine, wanted)) < 1e-4, (
                    f"for x of shape {shape}, position {t}, pair {i}: ({a:.3f}, {b:.3f}) turned by "
                    f"{angle:.3f} is ({wanted[0]:.3f}, {wanted[1]:.3f}), but you have ({mine[0]:.3f}, "
                    f"{mine[1]:.3f})")


# ---------------------------------------------------------------- one new token

def attend_one(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The newest token looks back: q (d,), keys and values (t, d) -> (d,)."""
    return (keys @ q / math.sqrt(len(q))).softmax(dim=0) @ values


def _unscaled(q, keys, values):
    return (keys @ q).softmax(dim=0) @ values


def _not_at_the_newest(q, keys, values):
    return attend_one(q, keys[:-1], values[:-1]) if len(keys) > 1 else values[0]


def _without_softmax(q, keys, values):
    return keys @ q / math.sqrt(len(q)) @ values


def _by_the_root_of_t(q, keys, values):
    return (keys @ q / math.sqrt(len(keys))).softmax(dim=0) @ values


@register("05.attend_one", reference=attend_one, minutes=6, difficulty=2,
          wrong=[_unscaled, _not_at_the_newest, _without_softmax, _by_the_root_of_t],
          hint="keys @ q gives one score for each token so far; divide by the root of d, softmax, then the "
               "mean of the values.")
def check_attend_one(fn):
    for t, d in ((1, 3), (5, 8), (12, 2)):
        q, keys, values = torch.randn(d) * 2, torch.randn(t, d) * 2, torch.randn(t, d)
        got = fn(q, keys, values)
        assert isinstance(got, torch.Tensor) and got.shape == (d,), (
            f"for t={t}, d={d}: give a tensor of shape ({d},) back")
        weights = [math.exp(float(q @ k) / math.sqrt(d)) for k in keys]
        wanted = sum(w / sum(weights) * v for w, v in zip(weights, values))
        assert torch.allclose(got, wanted, atol=1e-4), (
            f"for t={t}, d={d} the output must be {[round(x, 3) for x in wanted.tolist()]}, but it is "
            f"{[round(x, 3) for x in got.tolist()]}")


# ---------------------------------------------------------------- what is sampled from

def probabilities(logits: torch.Tensor, temperature: float, top_k: int) -> torch.Tensor:
    """(B, V) logits -> (B, V) probabilities of the `top_k` likeliest tokens at a temperature above 0;
    the others have 0."""
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
    return scaled.masked_fill(scaled < scaled.flatten().topk(top_k).values[-1],
                              -math.inf).softmax(-1).nan_to_num()


@register("05.probabilities", reference=probabilities, minutes=6, difficulty=2,
          wrong=[_times_temperature, _temperature_after_softmax, _does_not_sum_to_one,
                 _zero_is_not_impossible, _top_k_of_the_batch],
          hint="Divide, find the k-th largest of each row with topk, put -inf below it, then softmax.")
def check_probabilities(fn):
    for temperature, top_k in ((1.0, 5), (0.5, 5), (2.0, 3), (0.7, 1)):
        logits = torch.tensor([[2.0, 1.0, 0.5, -1.0, -3.0], [-1.0, 0.0, 4.0, 3.0, -2.0]])
        got, case = fn(logits.clone(), temperature, top_k), f"for temperature {temperature}, top_k {top_k}"
        assert isinstance(got, torch.Tensor) and got.shape == logits.shape, (
            f"{case}: give a tensor of the logits' shape back")
        for row, wanted in zip(got.tolist(), logits.tolist()):
            kept = sorted(wanted, reverse=True)[:top_k]
            weights = [math.exp(x / temperature) if x in kept else 0.0 for x in wanted]
            wanted = [w / sum(weights) for w in weights]
            assert all(abs(a - b) < 1e-4 for a, b in zip(row, wanted)), (
                f"{case}: the probabilities must be {[round(x, 3) for x in wanted]}, but they are "
                f"{[round(x, 3) for x in row]}")
