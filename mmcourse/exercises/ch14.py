"""Exercises of chapter 14: read a law, split a budget, deal a batch, put the parts' losses together, and two lines of a bill."""
import math

import torch

from mmcourse.distributed import share
from mmcourse.exercises import register
from mmcourse.experiments.bill import DEVICES, device_named, training_flops, utilisation
from mmcourse.experiments.scaling import Law

# ---------------------------------------------------------------- how many tokens for a loss

def tokens_for(law: Law, N: float, loss: float) -> float:
    """Tokens after which a net of N parameters has come down to a loss; infinite if it never does."""
    rest = loss - law.E - law.A * N ** -law.a
    return (law.B / rest) ** (1 / law.b) if rest > 0 else math.inf


def _without_the_floor(law, N, loss):
    rest = loss - law.A * N ** -law.a
    return (law.B / rest) ** (1 / law.b) if rest > 0 else math.inf


def _of_an_endless_net(law, N, loss):
    rest = loss - law.E
    return (law.B / rest) ** (1 / law.b) if rest > 0 else math.inf


def _the_power_upright(law, N, loss):
    rest = loss - law.E - law.A * N ** -law.a
    return (law.B / rest) ** law.b if rest > 0 else math.inf


def _always_somehow(law, N, loss):
    return (law.B / abs(loss - law.E - law.A * N ** -law.a)) ** (1 / law.b)


def _upside_down(law, N, loss):
    rest = loss - law.E - law.A * N ** -law.a
    return (rest / law.B) ** (1 / law.b) if rest > 0 else math.inf


@register("14.tokens_for", reference=tokens_for, minutes=7, difficulty=1,
          wrong=[_without_the_floor, _of_an_endless_net, _the_power_upright, _always_somehow, _upside_down],
          hint="what is left for B D^-b when E and A N^-a are taken off? Solve for D; if nothing is left, math.inf")
def check_tokens_for(fn):
    law = Law(E=0.5, A=20.0, a=0.5, B=3000.0, b=0.8)
    N, D = 1e6, 4e6
    got = fn(law, N, float(law(N, D)))
    bare = law.B * D ** -law.b
    mistakes = {"the floor E is in the loss, too: take it off first": (law.B / (bare + law.E)) ** (1 / law.b),
                "the net's own term A N^-a has to come off as well": (law.B / (bare + law.A * N ** -law.a)) ** (1 / law.b),
                "D^-b = rest / B, so the power is 1 / b, not b": (law.B / bare) ** law.b}
    for mistake, due in mistakes.items():
        assert not math.isclose(got, due, rel_tol=1e-6), mistake
    assert math.isclose(got, D, rel_tol=1e-6), f"a loss of {law(N, D):.4f} is that of {D:g} tokens by this law, got {got:g}"
    for loss, why in ((0.51, "below E + A N^-a, where no data help"), (0.4, "below the floor")):
        assert fn(law, N, loss) == math.inf, f"a loss of {loss} is {why}: return math.inf, got {fn(law, N, loss)}"


# ---------------------------------------------------------------- the best split of a budget

def best_split(law: Law, flops: float) -> tuple[float, float]:
    """N and D of the least loss for a budget of operations, 6 N D = flops (Hoffmann et al. 2022)."""
    N = (law.a * law.A / (law.b * law.B)) ** (1 / (law.a + law.b)) * (flops / 6) ** law.share
    return N, flops / (6 * N)


def _half_and_half(law, flops):
    return math.sqrt(flops / 6), math.sqrt(flops / 6)


def _the_other_exponent(law, flops):
    N = (law.a * law.A / (law.b * law.B)) ** (1 / (law.a + law.b)) * (flops / 6) ** (1 - law.share)
    return N, flops / (6 * N)


def _equal_terms(law, flops):
    N = (law.A / law.B) ** (1 / (law.a + law.b)) * (flops / 6) ** law.share
    return N, flops / (6 * N)


def _only_powers(law, flops):
    N = (flops / 6) ** law.share
    return N, flops / (6 * N)


def _twice_n_d(law, flops):
    N, D = best_split(law, 3 * flops)
    return N, D


@register("14.best_split", reference=best_split, minutes=12, difficulty=3,
          wrong=[_half_and_half, _the_other_exponent, _equal_terms, _only_powers, _twice_n_d],
          hint="put D = C / 6N into the law and set the slope by N to zero: a A N^-a = b B D^-b; solve for N")
def check_best_split(fn):
    for law, flops in ((Law(0.5, 20.0, 0.5, 3000.0, 0.8), 1e16), (Law(0.1, 50.0, 0.3, 200.0, 0.4), 1e13)):
        N, D = fn(law, flops)
        assert math.isclose(6 * N * D, flops, rel_tol=1e-6), (
            f"6 N D has to be the budget of {flops:g}; N = {N:g} and D = {D:g} make {6 * N * D:g}")
        got, terms = float(law(N, D)), (law.A * N ** -law.a, law.B * D ** -law.b)
        assert not math.isclose(*terms, rel_tol=1e-6), ("both terms are equally large: that is not where their *slopes* cancel; "
                                                        "the derivatives bring a factor a and a factor b")
        for factor, side in ((1.02, "more"), (0.98, "fewer")):
            near = float(law(factor * N, D / factor))
            assert got <= near * (1 + 1e-9), (f"with 2 % {side} parameters for the same budget the loss is lower ({near:.6f}, "
                                              f"yours {got:.6f}): this is not the lowest point")


# ---------------------------------------------------------------- deal a batch

def _every_nth(batch, i, n):
    return tuple(part for part in (x[i::n] for x in batch) if len(part))


def _chunks(batch, i, n):
    return tuple(x.chunk(n)[i] for x in batch if len(x.chunk(n)) > i)


def _drops_the_rest(batch, i, n):
    parts = (x[i * (len(x) // n):(i + 1) * (len(x) // n)] for x in batch)
    return tuple(part for part in parts if len(part))


def _columns(batch, i, n):
    return tuple(x.tensor_split(n, dim=-1)[i] for x in batch)


def _keeps_what_is_empty(batch, i, n):
    return tuple(x.tensor_split(n)[i] for x in batch)


def _the_first_alone(batch, i, n):
    return (batch[0].tensor_split(n)[i],)


@register("14.share", reference=share, minutes=6, difficulty=1,
          wrong=[_every_nth, _chunks, _drops_the_rest, _columns, _keeps_what_is_empty, _the_first_alone],
          hint="x.tensor_split(n)[i] for each tensor x; keep those parts that have a row")
def check_share(fn):
    batch = torch.arange(14).view(7, 2), torch.arange(7)
    got = [fn(batch, i, 3) for i in range(3)]
    assert all(isinstance(part, tuple) and len(part) == 2 for part in got), (
        "a part has all tensors that the batch has, as a tuple (here 2)")
    for k, whole in enumerate(batch):
        assert all(part[k].shape[1:] == whole.shape[1:] for part in got), (
            f"rows stay whole: those of {tuple(whole.shape)} are dealt along the first dimension")
        back = torch.cat([part[k] for part in got])
        assert back.shape == whole.shape, (f"7 rows dealt to 3 must come back as 7 rows of the same width: got shape "
                                           f"{tuple(back.shape)} for {tuple(whole.shape)}")
        assert torch.equal(back, whole), "neighbouring rows, in order: part 0 has the first ones"
    sizes = [len(fn((torch.arange(5),), i, 4)[0]) if fn((torch.arange(5),), i, 4) else 0 for i in range(4)]
    assert max(sizes) - min(sizes) <= 1, f"5 rows for 4 processes: two, one, one, one; got {sizes} (somebody would sit idle)"
    got = fn((torch.arange(4), torch.arange(1)), 1, 2)
    assert len(got) == 1, "part 1 of a tensor with a single row has no rows: leave that tensor out"


# ---------------------------------------------------------------- the loss of the whole

def whole_loss(losses, counts) -> float:
    """The mean over all tokens, from each part's mean and its number of tokens."""
    return sum(loss * n for loss, n in zip(losses, counts, strict=True)) / sum(counts)


def _mean_of_means(losses, counts):
    return sum(losses) / len(losses)


def _the_sum(losses, counts):
    return sum(loss * n for loss, n in zip(losses, counts))


def _over_the_parts(losses, counts):
    return sum(loss * n for loss, n in zip(losses, counts)) / len(counts)


def _the_fewer_the_more(losses, counts):
    weights = [1 / n for n in counts]
    return sum(loss * w for loss, w in zip(losses, weights)) / sum(weights)


def _sums_of_losses(losses, counts):
    return sum(losses) / sum(counts)


@register("14.whole_loss", reference=whole_loss, minutes=5, difficulty=1,
          wrong=[_mean_of_means, _the_sum, _over_the_parts, _the_fewer_the_more, _sums_of_losses],
          hint="a mean times its count is a sum again; add the sums, add the counts, divide once")
def check_whole_loss(fn):
    got = fn([2.0, 4.0], [30, 10])
    assert not math.isclose(got, 3.0), ("that is the mean of means: 30 tokens of loss 2 and 10 of loss 4 are 40 tokens, of which "
                                        "each counts alike")
    assert math.isclose(got, 2.5), f"30 tokens of mean 2 and 10 of mean 4: (60 + 40) / 40 = 2.5, got {got}"
    assert math.isclose(fn([1.5, 1.5, 1.5], [1, 7, 2]), 1.5), "if all parts have the same mean, so has the whole"
    assert math.isclose(fn([1.0, 2.0, 6.0], [5, 5, 5]), 3.0), "three parts of five tokens: here the plain mean is right"


# ---------------------------------------------------------------- operations

def _forward_alone(parameters, tokens, layers=0, width=0, context=0):
    return (2 * parameters + 4 * layers * width * context) * tokens


def _attention_forward(parameters, tokens, layers=0, width=0, context=0):
    return (6 * parameters + 4 * layers * width * context) * tokens


def _one_layer(parameters, tokens, layers=0, width=0, context=0):
    return (6 * parameters + 12 * width * context) * tokens


def _attention_once(parameters, tokens, layers=0, width=0, context=0):
    return 6 * parameters * tokens + 12 * layers * width * context


def _without_attention(parameters, tokens, layers=0, width=0, context=0):
    return 6 * parameters * tokens


@register("14.training_flops", reference=training_flops, minutes=6, difficulty=2,
          wrong=[_forward_alone, _attention_forward, _one_layer, _attention_once, _without_attention],
          hint="for each token: 6 for each parameter, and 12 x layers x width x context for the attention")
def check_training_flops(fn):
    got = fn(1e6, 1e3)
    assert got != 2e9, "that is the forward pass alone; backward takes twice as much again"
    assert math.isclose(got, 6e9), f"a million parameters, a thousand tokens: 6e9 operations, got {got:g}"
    got, due = fn(1e6, 1e3, 6, 192, 256), training_flops(1e6, 1e3, 6, 192, 256)
    assert got != 6e9, "with layers, width and context the attention counts, too"
    extra = (got - 6e9) / (due - 6e9)
    assert not math.isclose(extra, 1 / 6), "every layer has its attention: times `layers`"
    assert not math.isclose(extra, 1 / 3), "attention has a backward pass, too: 4 forward, 8 backward"
    assert not math.isclose(extra, 1 / 1e3), "attention is paid for every token: times `tokens`"
    assert math.isclose(got, due), f"6 layers of 192, context 256: {due:g}, got {got:g}"


# ---------------------------------------------------------------- how much of a device is used

def _hours_as_seconds(flops, hours, device):
    return flops / (hours * device_named(device).peak)


def _minutes(flops, hours, device):
    return flops / (hours * 60 * device_named(device).peak)


def _upside_down_share(flops, hours, device):
    return hours * 3600 * device_named(device).peak / flops


def _percent(flops, hours, device):
    return 100 * utilisation(flops, hours, device)


def _always_a100(flops, hours, device):
    return utilisation(flops, hours, "A100")


@register("14.utilisation", reference=utilisation, minutes=6, difficulty=1,
          wrong=[_hours_as_seconds, _minutes, _upside_down_share, _percent, _always_a100],
          hint="what the device could have done is hours x 3600 s x its peak; MFU is what was needed over that")
def check_utilisation(fn):
    full = 2 * 3600 * DEVICES["A100"].peak
    got = fn(full / 2, 2, "A100")
    assert not math.isclose(got, 50), "a share, please, not percent"
    assert not math.isclose(got, 1800), "the peak is for a second, and these are hours"
    assert not math.isclose(got, 2), "the other way round: what was needed over what was possible"
    assert math.isclose(got, 0.5), f"half of what an A100 can do in two hours is 0.5, got {got:g}"
    got = fn(2 * 3600 * DEVICES["H100"].peak, 2, DEVICES["H100"])
    assert math.isclose(got, 1), f"each device has its own peak, and may be a Device itself (`device_named`): due 1, got {got:g}"
