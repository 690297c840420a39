"""Exercises of chapter 05: counting pairs, the causal mask, one head, the step of training, sampling, the newest
token, rotary positions."""
import copy
import math

import torch

from mmcourse.exercises import register
from mmcourse.generate import filter_logits
from mmcourse.transformer import Transformer, next_token_loss


def rounded(x: torch.Tensor) -> list:
    """Numbers as an error message shows them."""
    return [round(value, 3) for value in x.tolist()]


def why(got: torch.Tensor, guesses: dict[str, torch.Tensor]) -> str:
    """The sentence of the known mistake that gives exactly this answer; of none: an empty one."""
    for sentence, answer in guesses.items():
        if got.shape == answer.shape and torch.allclose(got, answer, atol=1e-4, equal_nan=True):
            return ": " + sentence
    return ""


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


def _by_column(before, after, V):
    table = torch.full((V, V), 0.01).index_put_((before, after), torch.ones(len(before)), accumulate=True)
    return table / table.sum(0, keepdim=True)


def _only_counted(before, after, V):
    return torch.full((V, V), 0.01).index_put_((before, after), torch.ones(len(before)), accumulate=True)


def _nothing_added(before, after, V):
    table = torch.zeros(V, V).index_put_((before, after), torch.ones(len(before)), accumulate=True)
    return table / table.sum(1, keepdim=True).clamp(min=1)


def _no_keepdim(before, after, V):
    table = torch.full((V, V), 0.01).index_put_((before, after), torch.ones(len(before)), accumulate=True)
    return table / table.sum(1)


def _softmax_of_counts(before, after, V):
    return _only_counted(before, after, V).softmax(1)


def _added_too_late(before, after, V):
    table = torch.zeros(V, V).index_put_((before, after), torch.ones(len(before)), accumulate=True)
    return (table + 0.01) / table.sum(1, keepdim=True)


@register("05.bigram", reference=bigram, minutes=5, difficulty=1,
          wrong=[_each_pair_once, _what_came_before, _of_all_pairs, _by_column, _only_counted, _nothing_added,
                 _no_keepdim, _softmax_of_counts, _added_too_late],
          hint="Start from torch.full((V, V), 0.01); index_put_ with accumulate=True counts; divide by the "
               "sum of each row.")
def check_bigram(fn):
    before, after, V = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([1, 1, 3, 2, 0, 0]), 4
    got = fn(before.clone(), after.clone(), V)
    assert isinstance(got, torch.Tensor) and got.shape == (V, V), (
        f"for V={V}: give a tensor of shape ({V}, {V}) back")
    known = {"you divided by the sum of the columns: divide each row by its own sum": _by_column,
             "rows and columns are exchanged: row i must say what comes AFTER token i": _what_came_before,
             "a pair that comes twice was counted once (`table[before, after] += 1` does that): use "
             "`index_put_(..., accumulate=True)`": _each_pair_once,
             "you divided by the sum of the whole table: divide each row by its own sum": _of_all_pairs,
             "these are counts: divide each row by its sum, so that it becomes probabilities": _only_counted,
             "the 0.01 is missing: add it to every count before you divide": _nothing_added,
             "each row must be divided by its OWN sum: `table.sum(1, keepdim=True)`, else row i is divided by "
             "all the sums": _no_keepdim,
             "no softmax here: divide the counts by their sum": _softmax_of_counts,
             "the 0.01 belongs to the sum of the row too: add it before you take the sum": _added_too_late}
    reason = why(got, {sentence: answer(before, after, V) for sentence, answer in known.items()})
    for i in range(V):
        for j in range(V):
            count = int(((before == i) & (after == j)).sum())
            total = int((before == i).sum())
            wanted = (count + 0.01) / (total + 0.01 * V)
            assert abs(float(got[i, j]) - wanted) < 1e-4, (
                f"token {j} came {count} times after token {i}, which came {total} times: the probability "
                f"must be {wanted:.4f}, but it is {float(got[i, j]):.4f}{reason}")


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


def _what_must_not_be_seen(T):
    return torch.ones(T, T, dtype=torch.bool).triu(1)


def _as_numbers(T):
    return torch.ones(T, T).tril()


@register("05.causal_mask", reference=causal_mask, minutes=2, difficulty=1,
          wrong=[_not_at_itself, _at_the_future, _at_everything, _as_numbers, _what_must_not_be_seen],
          hint="torch.ones(T, T, dtype=torch.bool) and one method of tensors: tril or triu.")
def check_causal_mask(fn):
    for T in (4, 1, 7):
        got = fn(T)
        assert isinstance(got, torch.Tensor) and got.dtype == torch.bool, (
            f"for T={T}: give a bool tensor back, not {getattr(got, 'dtype', type(got).__name__)}")
        assert got.shape == (T, T), f"for T={T} the shape must be ({T}, {T}), but it is {tuple(got.shape)}"
        reason = why(got.float(), {"everyone sees the whole future": torch.ones(T, T),
                                   "this is the upper triangle, which is the future": torch.ones(T, T).triu(),
                                   "this marks the future, which must NOT be seen: the other way round":
                                       torch.ones(T, T).triu(1),
                                   "a token sees itself too": torch.ones(T, T).tril(-1)})
        for i in range(T):
            for j in range(T):
                may = "may" if j <= i else "must not"
                assert bool(got[i, j]) == (j <= i), f"for T={T}: token {i} {may} look at token {j}{reason}"


# ---------------------------------------------------------------- one head

def attention_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """One causal head: q, k, v (T, d) -> (T, d)."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    return scores.masked_fill(~causal_mask(len(q)), -math.inf).softmax(dim=1) @ v


def _no_scale(q, k, v):
    return (q @ k.T).masked_fill(~causal_mask(len(q)), -math.inf).softmax(dim=1) @ v


def _scaled_by_d(q, k, v):
    return (q @ k.T / q.shape[1]).masked_fill(~causal_mask(len(q)), -math.inf).softmax(dim=1) @ v


def _no_mask(q, k, v):
    return (q @ k.T / math.sqrt(q.shape[1])).softmax(dim=1) @ v


def _masked_with_zero(q, k, v):
    return (q @ k.T / math.sqrt(q.shape[1])).masked_fill(~causal_mask(len(q)), 0.0).softmax(dim=1) @ v


def _over_columns(q, k, v):
    scores = (q @ k.T / math.sqrt(q.shape[1])).masked_fill(~causal_mask(len(q)), -math.inf)
    return scores.softmax(dim=0) @ v


def _mask_after_softmax(q, k, v):
    return ((q @ k.T / math.sqrt(q.shape[1])).softmax(dim=1) * causal_mask(len(q))) @ v


def _keys_ask(q, k, v):
    return attention_head(k, q, v)


def _masks_the_past(q, k, v):
    return (q @ k.T / math.sqrt(q.shape[1])).masked_fill(causal_mask(len(q)), -math.inf).softmax(dim=1) @ v


def _by_the_number_of_tokens(q, k, v):
    return attention_head(q * math.sqrt(q.shape[1] / len(q)), k, v)


def _times_the_root(q, k, v):
    return attention_head(q * q.shape[1], k, v)


HEAD_MISTAKES = {
    "the scores were not divided: divide them by the root of d": _no_scale,
    "divide by the ROOT of d, not by d": _scaled_by_d,
    "the future is not masked: token t must not see the tokens after it": _no_mask,
    "a masked score must be -infinity: e to the power of 0 is 1, and the future still gets its weight":
        _masked_with_zero,
    "the softmax runs down the columns: each ROW must sum to one (dim=1)": _over_columns,
    "the mask came after the softmax: the weights that are left no longer sum to one": _mask_after_softmax,
    "the keys ask the queries: the scores are q @ k.T": _keys_ask,
    "you masked what may be seen: `masked_fill` overwrites where it finds True, so give it ~mask": _masks_the_past,
    "d is the length of a query (q.shape[1]), not the number of tokens": _by_the_number_of_tokens,
    "you multiplied by the root of d: divide": _times_the_root}


@register("05.attention_head", reference=attention_head, minutes=8, difficulty=2, wrong=list(HEAD_MISTAKES.values()),
          hint="Four steps: scores = q @ k.T, divide by the root of d, masked_fill the future with -inf, "
               "softmax over each row.")
def check_attention_head(fn):
    for T, d in ((4, 8), (1, 3), (9, 2)):
        q, k, v = torch.randn(T, d) * 2, torch.randn(T, d) * 2, torch.randn(T, d)
        got = fn(q.clone(), k.clone(), v.clone())
        assert isinstance(got, torch.Tensor) and got.shape == (T, d), (
            f"for T={T}, d={d}: give a tensor of shape ({T}, {d}) back")
        reason = why(got, {sentence: answer(q, k, v) for sentence, answer in HEAD_MISTAKES.items()})
        for t in range(T):
            scores = [float(q[t] @ k[s]) / math.sqrt(d) for s in range(t + 1)]
            total = sum(math.exp(s - max(scores)) for s in scores)
            wanted = sum(math.exp(s - max(scores)) / total * v[i] for i, s in enumerate(scores))
            assert torch.allclose(got[t], wanted, atol=1e-4), (
                f"for T={T}, d={d}: output {t} is {rounded(got[t])}, but it must be {rounded(wanted)}{reason}")


# ---------------------------------------------------------------- the step of training

def training_step(model: Transformer, optimizer: torch.optim.Optimizer, ids: torch.Tensor) -> float:
    """One step of training on a batch of ids (B, T); the loss that the model had before the step."""
    loss = next_token_loss(model, ids)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _gradients_add_up(model, optimizer, ids):
    loss = next_token_loss(model, ids)
    loss.backward()
    optimizer.step()
    return loss.item()


def _forgotten_too_early(model, optimizer, ids):
    loss = next_token_loss(model, ids)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


def _never_moves(model, optimizer, ids):
    loss = next_token_loss(model, ids)
    loss.backward()
    optimizer.zero_grad()
    return loss.item()


def _no_gradient(model, optimizer, ids):
    loss = next_token_loss(model, ids)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _moves_first(model, optimizer, ids):
    loss = next_token_loss(model, ids)
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


def _moves_twice(model, optimizer, ids):
    loss = next_token_loss(model, ids)
    loss.backward()
    optimizer.step()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _loss_afterwards(model, optimizer, ids):
    training_step(model, optimizer, ids)
    return next_token_loss(model, ids).item()


def _a_tensor(model, optimizer, ids):
    loss = next_token_loss(model, ids)
    training_step(model, optimizer, ids)
    return loss


class _Watched(torch.optim.SGD):
    """Plain gradient descent that writes down what is called, and when a gradient comes."""

    def __init__(self, model: torch.nn.Module, lr: float):
        super().__init__(model.parameters(), lr=lr)
        self.calls: list[str] = []
        first = next(model.parameters())
        first.register_post_accumulate_grad_hook(lambda _: self.calls.append("backward"))

    def step(self, closure=None):
        self.calls.append("step")
        return super().step(closure)

    def zero_grad(self, set_to_none: bool = True):
        self.calls.append("zero_grad")
        return super().zero_grad(set_to_none)


def _order(calls: list[str]) -> str:
    """What is wrong with the calls that one training step made; an empty sentence if nothing is."""
    if "backward" not in calls:
        return "no gradient was asked for: call loss.backward()"
    if "step" not in calls:
        return "the weights never move: call optimizer.step() after backward()"
    if calls.count("step") > 1:
        return f"optimizer.step() was called {calls.count('step')} times"
    back, move = calls.index("backward"), calls.index("step")
    if move < back:
        return "optimizer.step() came before loss.backward(): it had no gradients of this batch"
    if "zero_grad" in calls[back:move]:
        return "the gradients were set to zero between backward() and step(): nothing was left to step by"
    if "zero_grad" not in calls:
        return "the gradients of the last batch are still there and the new ones are added: optimizer.zero_grad()"
    return ""


@register("05.training_step", reference=training_step, minutes=8, difficulty=2,
          wrong=[_gradients_add_up, _forgotten_too_early, _never_moves, _no_gradient, _moves_first, _moves_twice,
                 _loss_afterwards, _a_tensor],
          hint="next_token_loss(model, ids), then loss.backward(), optimizer.step(), optimizer.zero_grad(); "
               "loss.item() is the number.")
def check_training_step(fn):
    model, rate = Transformer(12, width=8, layers=1, heads=2, context=16), 0.5
    twin, optimizer = copy.deepcopy(model), _Watched(model, rate)
    for number in range(1, 4):
        ids = torch.randint(1, 12, (4, 9))
        expected = next_token_loss(twin, ids)
        gradients = torch.autograd.grad(expected, list(twin.parameters()))
        with torch.no_grad():
            for p, gradient in zip(twin.parameters(), gradients):
                p -= rate * gradient
        optimizer.calls.clear()
        got = fn(model, optimizer, ids.clone())
        moved = max((p - q).abs().max().item() for p, q in zip(model.parameters(), twin.parameters()))
        assert moved < 1e-5, (f"after step {number} the weights are not where one step of gradient descent leads: "
                              + (_order(optimizer.calls) or "is the loss `next_token_loss(model, ids)`?"))
        assert isinstance(got, float), (
            f"give the loss back as a float, not {type(got).__name__}: `loss.item()` (a tensor keeps all that it was "
            "computed from)")
        after = next_token_loss(twin, ids).item()
        assert abs(got - expected.item()) < 1e-4, (
            f"the loss before the step was {expected.item():.4f}, but you give {got:.4f}"
            + (": that is the loss after the step" if abs(got - after) < 1e-4 else ""))


# ---------------------------------------------------------------- what is sampled from

def probabilities(logits: torch.Tensor, temperature: float, top_k: int) -> torch.Tensor:
    """(B, V) logits -> (B, V) probabilities of the `top_k` likeliest tokens at a temperature above 0;
    the others have 0."""
    return filter_logits(logits / temperature, top_k).softmax(-1)


def _times_temperature(logits, temperature, top_k):
    return filter_logits(logits * temperature, top_k).softmax(-1)


def _no_temperature(logits, temperature, top_k):
    return filter_logits(logits, top_k).softmax(-1)


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


def _one_too_few(logits, temperature, top_k):
    scaled = logits / temperature
    return scaled.masked_fill(scaled <= scaled.topk(top_k, dim=-1).values[:, -1:], -math.inf).softmax(-1).nan_to_num()


def _over_the_batch(logits, temperature, top_k):
    return filter_logits(logits / temperature, top_k).softmax(0).nan_to_num()


def _only_the_likeliest(logits, temperature, top_k):
    return filter_logits(logits / temperature, 1).softmax(-1)


SAMPLING_MISTAKES = {
    "you multiplied by the temperature: divide": _times_temperature,
    "the temperature changes nothing here: divide the logits by it": _no_temperature,
    "the probabilities were divided by the temperature: divide the LOGITS, before the softmax":
        _temperature_after_softmax,
    "the dropped tokens still had their share of the softmax: put -infinity in their place BEFORE the softmax":
        _does_not_sum_to_one,
    "a dropped logit must be -infinity: e to the power of 0 is 1, not 0": _zero_is_not_impossible,
    "the k likeliest were sought in the whole batch: each row has its own": _top_k_of_the_batch,
    "the k-th likeliest token was dropped: it stays (`<`, not `<=`)": _one_too_few,
    "the softmax runs over the batch: it belongs over the tokens of a row (dim=-1)": _over_the_batch,
    "only the likeliest token is left: the k-th largest is the LAST that topk gives": _only_the_likeliest}


@register("05.probabilities", reference=probabilities, minutes=5, difficulty=2,
          wrong=list(SAMPLING_MISTAKES.values()),
          hint="Divide, find the k-th largest of each row with topk, put -inf below it, then softmax.")
def check_probabilities(fn):
    logits = torch.tensor([[2.0, 1.0, 0.5, -1.0, -3.0], [-1.0, 0.0, 4.0, 3.0, -2.0]])
    for temperature, top_k in ((0.5, 3), (1.0, 5), (2.0, 3), (0.7, 1)):
        got, case = fn(logits.clone(), temperature, top_k), f"for temperature {temperature}, top_k {top_k}"
        assert isinstance(got, torch.Tensor) and got.shape == logits.shape, (
            f"{case}: give a tensor of the logits' shape back")
        reason = why(got, {sentence: answer(logits, temperature, top_k)
                           for sentence, answer in SAMPLING_MISTAKES.items()})
        for row, wanted in zip(got.tolist(), logits.tolist()):
            kept = sorted(wanted, reverse=True)[:top_k]
            weights = [math.exp(x / temperature) if x in kept else 0.0 for x in wanted]
            wanted = [w / sum(weights) for w in weights]
            assert all(abs(a - b) < 1e-4 for a, b in zip(row, wanted)), (
                f"{case}: the probabilities must be {[round(x, 3) for x in wanted]}, but they are "
                f"{[round(x, 3) for x in row]}{reason}")


# ---------------------------------------------------------------- top-p

def keep_top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """(B, V) logits -> (B, V), -infinity for all but the smallest set of the likeliest tokens that holds
    at least the probability `p`."""
    ordered, order = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    drop = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= p)
    return logits.masked_fill(drop, -math.inf)


def _stops_before_p(logits, p):
    ordered, order = logits.sort(dim=-1, descending=True)
    drop = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, ordered.softmax(-1).cumsum(-1) > p)
    return logits.masked_fill(drop, -math.inf)


def _one_too_many(logits, p):
    ordered, order = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    drop = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before.roll(1, -1) * (before > 0) >= p)
    return logits.masked_fill(drop, -math.inf)


def _left_in_order(logits, p):
    ordered = logits.sort(dim=-1, descending=True).values
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    return ordered.masked_fill(before >= p, -math.inf)


def _not_put_back(logits, p):
    ordered = logits.sort(dim=-1, descending=True).values
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    return logits.masked_fill(before >= p, -math.inf)


def _unlikeliest_first(logits, p):
    ordered, order = logits.sort(dim=-1)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    return logits.masked_fill(torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= p), -math.inf)


def _dropped_is_zero(logits, p):
    return keep_top_p(logits, p).nan_to_num(neginf=0.0)


def _gives_probabilities(logits, p):
    return keep_top_p(logits, p).softmax(-1)


def _drops_nothing(logits, p):
    return logits


@register("05.top_p", reference=keep_top_p, minutes=12, difficulty=3,
          wrong=[_stops_before_p, _one_too_many, _left_in_order, _not_put_back, _unlikeliest_first, _dropped_is_zero,
                 _gives_probabilities, _drops_nothing],
          hint="Sort descending; the probability of all that is likelier is cumsum minus the token itself; drop "
               "where that is p or more; scatter puts the flags back into the logits' order.")
def check_top_p(fn):
    logits = torch.tensor([[1.0, 1.1, 1.2, 0.9, 0.8], [2.0, 5.0, 3.0, 4.0, 1.0], [0.0, 1.0, 0.5, 6.0, -1.0]])
    for p in (0.5, 0.8, 0.95, 0.99):
        got = fn(logits.clone(), p)
        assert isinstance(got, torch.Tensor) and got.shape == logits.shape, (
            f"for p={p}: give a tensor of the logits' shape {tuple(logits.shape)} back")
        for line, (row, mine) in enumerate(zip(logits, got)):
            _check_kept(row, mine, p, f"for p={p}, row {line}")


def _check_kept(row: torch.Tensor, mine: torch.Tensor, p: float, case: str) -> None:
    """Is what one row keeps what top-p keeps? One assertion a rule."""
    chances, kept = row.softmax(-1), mine != -math.inf
    assert not (bool((mine >= 0).all()) and abs(mine.sum().item() - 1) < 1e-4), (
        f"{case}: these are probabilities; give logits back, -infinity where a token is dropped")
    if not torch.equal(mine[kept], row[kept]):
        assert set(rounded(mine[kept])) <= set(rounded(row)), (
            f"{case}: a dropped logit must be -infinity and a kept one stay as it is; the logits {rounded(row)} "
            f"became {rounded(mine)}")
        raise AssertionError(f"{case}: the logits come back in another order than they went in: put them back where "
                             "they were (`scatter` with the order of the sort)")
    assert kept.any(), f"{case}: no token is left; the likeliest always stays, even if it alone holds more than p"
    if not kept.all():
        least, best = chances[kept].min().item(), chances[~kept].max().item()
        assert least >= best, (f"{case}: a token of probability {least:.3f} is kept and one of {best:.3f} is dropped; "
                               "the likeliest come first (are the flags back in the logits' order?)")
    total = chances[kept].sum().item()
    assert total >= p - 1e-6, (f"{case}: what you keep holds {total:.3f}, less than p: the token that crosses p "
                               "stays too")
    spare = total - chances[kept].min().item()
    assert spare < p, (f"{case}: you keep {int(kept.sum())} tokens, which hold {total:.3f}; without the least likely "
                       f"of them they still hold {spare:.3f}, which is enough")


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


def _mean_of_the_keys(q, keys, values):
    return attend_one(q, keys, keys)


NEWEST_MISTAKES = {
    "the scores were not divided: divide them by the root of d": _unscaled,
    "the newest token looks at itself too: its key and value are the last of those given": _not_at_the_newest,
    "without a softmax the weights do not sum to one": _without_softmax,
    "d is the length of q, not the number of tokens": _by_the_root_of_t,
    "this is the mean of the keys: the weights belong to the values": _mean_of_the_keys}


@register("05.attend_one", reference=attend_one, minutes=4, difficulty=1, wrong=list(NEWEST_MISTAKES.values()),
          hint="keys @ q gives one score for each token so far; divide by the root of d, softmax, then the "
               "mean of the values.")
def check_attend_one(fn):
    for t, d in ((5, 8), (1, 3), (12, 2)):
        q, keys, values = torch.randn(d) * 2, torch.randn(t, d) * 2, torch.randn(t, d)
        got = fn(q.clone(), keys.clone(), values.clone())
        assert isinstance(got, torch.Tensor) and got.shape == (d,), (
            f"for t={t}, d={d}: give a tensor of shape ({d},) back")
        weights = [math.exp(float(q @ k) / math.sqrt(d)) for k in keys]
        wanted = sum(w / sum(weights) * v for w, v in zip(weights, values))
        reason = why(got, {sentence: answer(q, keys, values) for sentence, answer in NEWEST_MISTAKES.items()})
        assert torch.allclose(got, wanted, atol=1e-4), (
            f"for t={t}, d={d} the output must be {rounded(wanted)}, but it is {rounded(got)}{reason}")


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


def _the_other_way(x, frequencies):
    return rotate(x, -frequencies)


def _from_one(x, frequencies):
    return rotate(torch.cat([x[..., :1, :], x], -2), frequencies)[..., 1:, :]


def _neighbours(x, frequencies):
    angles = torch.arange(x.shape[-2])[:, None] * frequencies
    a, b = x[..., ::2], x[..., 1::2]
    turned = (a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos())
    return torch.stack(turned, -1).flatten(-2)


def _halves_interleaved(x, frequencies):
    return torch.stack(rotate(x, frequencies).chunk(2, dim=-1), -1).flatten(-2)


ROTATION_MISTAKES = {
    "each pair has a frequency of its own": _all_by_one_angle,
    "the angle grows with the position: position x frequency": _not_by_position,
    "a sign is wrong: a cos - b sin, and a sin + b cos": _a_mirror,
    "it was turned the other way": _the_other_way,
    "the first token stands at position 0 and is not turned": _from_one,
    "a pair is a number of the first half with its partner in the second half, not with its neighbour": _neighbours,
    "the turned halves were interleaved: put one behind the other (`torch.cat(..., -1)`)": _halves_interleaved}


@register("05.rotate", reference=rotate, minutes=8, difficulty=2, wrong=list(ROTATION_MISTAKES.values()),
          hint="angles = torch.arange(T)[:, None] * frequencies; a, b = x.chunk(2, dim=-1); turn each pair; "
               "torch.cat(..., -1).")
def check_rotate(fn):
    for shape in ((5, 6), (4, 2), (2, 3, 7, 4)):
        x, half = torch.randn(shape), shape[-1] // 2
        frequencies = 0.3 / torch.arange(1, half + 1)
        got = fn(x.clone(), frequencies.clone())
        assert isinstance(got, torch.Tensor) and got.shape == x.shape, (
            f"for x of shape {shape}: give the same shape back")
        reason = why(got, {sentence: answer(x, frequencies) for sentence, answer in ROTATION_MISTAKES.items()})
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
                    f"{mine[1]:.3f}){reason}")
