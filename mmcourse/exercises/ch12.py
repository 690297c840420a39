"""Exercises of chapter 12: what an answer costs, a race with dice that were thrown before, how many tokens are sure, how many a
pass settles, the test of speculative sampling; what a shelf is worth in bits, when a beginning is good enough; what is saved by
leaving early, and how unsure a model is."""
import math

import torch

from mmcourse.exercises import register
from mmcourse.experiments.budgets import first_good

# ---------------------------------------------------------------- what an answer costs

def answer_operations(weights: int, prompt: int, answer: int, cached: bool = True) -> int:
    """Multiplications and additions in the weights, for `answer` tokens after a prompt of `prompt` tokens."""
    through = prompt + answer - 1 if cached else sum(prompt + k for k in range(answer))
    return 2 * weights * through


def _counts_the_last_token(weights, prompt, answer, cached=True):
    return 2 * weights * (prompt + answer if cached else sum(prompt + k for k in range(answer)))


def _one_operation_a_weight(weights, prompt, answer, cached=True):
    return answer_operations(weights, prompt, answer, cached) // 2


def _never_caches(weights, prompt, answer, cached=True):
    return answer_operations(weights, prompt, answer, False)


def _always_caches(weights, prompt, answer, cached=True):
    return answer_operations(weights, prompt, answer, True)


def _forgets_the_prompt(weights, prompt, answer, cached=True):
    return 2 * weights * (answer if cached else answer * (answer + 1) // 2)


@register("12.answer_operations", reference=answer_operations, minutes=5, difficulty=1,
          wrong=[_counts_the_last_token, _one_operation_a_weight, _never_caches, _always_caches, _forgets_the_prompt],
          hint="count the tokens that go through the net; the last token of the answer comes out and need not go in again")
def check_answer_operations(fn):
    for weights, prompt, answer, cached, tokens in [(10, 3, 1, True, 3), (10, 3, 4, True, 6), (7, 5, 64, True, 68),
                                                    (10, 3, 1, False, 3), (10, 3, 4, False, 3 + 4 + 5 + 6)]:
        got, due = fn(weights, prompt, answer, cached), 2 * weights * tokens
        how = "with" if cached else "without"
        assert got == due, (f"{weights} weights, a prompt of {prompt}, an answer of {answer}, {how} a cache: {tokens} tokens go "
                            f"through, each twice {weights} operations: {due}, got {got}")


# ---------------------------------------------------------------- a race

def first_to_arrive(rates: torch.Tensor, dice: torch.Tensor) -> torch.Tensor:
    """Rates (..., V) and dice in (0, 1) (..., V) -> who is first (...)."""
    return (-dice.log() / rates).argmin(-1)


def _the_last(rates, dice):
    return (-dice.log() / rates).argmax(-1)


def _without_logarithm(rates, dice):
    return (dice / rates).argmin(-1)


def _the_likeliest(rates, dice):
    return rates.argmax(-1)


def _times_the_rate(rates, dice):
    return (-dice.log() * rates).argmin(-1)


def _over_all(rates, dice):
    return (-dice.log() / rates).argmin()


@register("12.first_to_arrive", reference=first_to_arrive, minutes=5, difficulty=1,
          wrong=[_the_last, _without_logarithm, _the_likeliest, _times_the_rate, _over_all],
          hint="the waiting time at rate 1 is -log of the dice; at rate r it is that divided by r; the first has the shortest")
def check_first_to_arrive(fn):
    got = fn(torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([[0.5, 0.5], [0.9, 0.5]]))
    assert got.shape == (2,), f"rates (2, 2) give one winner a row, (2,); got {tuple(got.shape)}"
    assert got.tolist() == [1, 0], ("rates 1 and 2: with dice .5 and .5 the faster one wins; with .9 and .5 the times are .105 "
                                    f"and .347, so that entry 0 wins; got {got.tolist()}")
    got = fn(torch.tensor([0.0, 1.0, 0.1]), torch.tensor([0.99, 0.01, 0.5]))
    assert got == 1, f"rate 0 never arrives, and 4.6 (dice .01, rate 1) comes before 6.9 (dice .5, rate .1); got {got}"
    dice = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(fn(torch.tensor([0.6, 0.3, 0.1]).expand(20_000, 3), dice), minlength=3) / 20_000
    assert (share - torch.tensor([0.6, 0.3, 0.1])).abs().max() < 0.015, (
        f"entries of probability .6, .3, .1 win as often as that: got {[round(x, 2) for x in share.tolist()]} in 20,000 races")


# ---------------------------------------------------------------- how many are sure

def count_sure(asked: torch.Tensor, found: torch.Tensor) -> int:
    """Guesses (B, W - 1) that went in, tokens (B, W) that came out -> how many of these are sure in all rows."""
    return 1 + int((found[:, :-1] == asked).int().cumprod(1).sum(1).min())


def _all_that_agree(asked, found):
    return 1 + int((found[:, :-1] == asked).sum(1).min())


def _forgets_the_next(asked, found):
    return count_sure(asked, found) - 1


def _the_luckiest_row(asked, found):
    return 1 + int((found[:, :-1] == asked).int().cumprod(1).sum(1).max())


def _off_by_one(asked, found):
    return 1 + int((found[:, 1:] == asked).int().cumprod(1).sum(1).min())


def _first_row_only(asked, found):
    return count_sure(asked[:1], found[:1])


@register("12.count_sure", reference=count_sure, minutes=8, difficulty=2,
          wrong=[_all_that_agree, _forgets_the_next, _the_luckiest_row, _off_by_one, _first_row_only],
          hint="a running product of zeros and ones stays one until the first zero")
def check_count_sure(fn):
    for asked, found, due, why in [
            ([[5, 6, 7]], [[5, 6, 7, 8]], 4, "all guesses were right, and the token after them is sure, too"),
            ([[5, 6, 7]], [[9, 6, 7, 8]], 1, "the first guess was wrong; what came in its place was made from settled tokens"),
            ([[5, 6, 7]], [[5, 9, 7, 8]], 2, "the second was wrong; the third agrees, but it followed a wrong one"),
            ([[5, 6, 7], [1, 2, 3]], [[5, 6, 7, 8], [1, 4, 3, 5]], 2, "the slower row decides"),
            ([[1, 2, 3], [5, 6, 7]], [[1, 4, 3, 5], [5, 6, 7, 8]], 2, "the slower row decides"),
            ([[4, 4]], [[3, 4, 4]], 1, "found[0] stands in the place of asked[0]")]:
        got = fn(torch.tensor(asked), torch.tensor(found))
        assert got == due, f"guesses {asked}, found {found}: {due} ({why}), got {got}"


# ---------------------------------------------------------------- how many a pass settles

def settled_a_pass(right: float, window: int) -> float:
    """The mean number of tokens that a pass over `window` places settles, if each guess is right with chance `right`."""
    return sum(right**k for k in range(window))


def _without_end(right, window):
    return 1 / (1 - right) if right < 1 else float(window)


def _all_right(right, window):
    return right * window


def _without_the_next(right, window):
    return sum(right**k for k in range(1, window))


def _one_too_far(right, window):
    return sum(right**k for k in range(window + 1))


@register("12.settled_a_pass", reference=settled_a_pass, minutes=6, difficulty=2,
          wrong=[_without_end, _all_right, _without_the_next, _one_too_far],
          hint="token k is settled if the k - 1 guesses before it are right; add up these chances")
def check_settled_a_pass(fn):
    for right, window, due in [(0.0, 8, 1.0), (1.0, 8, 8.0), (0.5, 3, 1.75), (0.9, 64, (1 - 0.9**64) / 0.1)]:
        got = fn(right, window)
        assert math.isclose(got, due, rel_tol=1e-9), (f"guesses right with chance {right}, a window of {window}: {due:.4g}, got "
                                                      f"{got:.4g}")


# ---------------------------------------------------------------- the test of speculative sampling

def speculative_test(p: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's probabilities p (V,) and the draft's q (V,) -> the chance that each drafted token is taken (V,), and the
    probabilities (V,) that another one is drawn from if it is not."""
    take = torch.where(q > 0, (p / q).clamp(max=1), torch.ones_like(p))
    left = (p - q).clamp(min=0)
    return take, left / left.sum() if left.sum() > 0 else p


def _draws_again_from_p(p, q):
    return speculative_test(p, q)[0], p


def _takes_by_p(p, q):
    return p, speculative_test(p, q)[1]


def _left_not_scaled(p, q):
    return speculative_test(p, q)[0], (p - q).clamp(min=0)


def _the_other_way(p, q):
    return torch.where(p > 0, (q / p).clamp(max=1), torch.ones_like(p)), speculative_test(p, q)[1]


def _always_takes(p, q):
    return torch.ones_like(p), speculative_test(p, q)[1]


@register("12.speculative_test", reference=speculative_test, minutes=10, difficulty=3,
          wrong=[_draws_again_from_p, _takes_by_p, _left_not_scaled, _the_other_way, _always_takes],
          hint="what the draft proposes too often is taken in p / q of the cases; what it proposes too seldom is made up for")
def check_speculative_test(fn):
    cases = [([0.5, 0.3, 0.2], [0.2, 0.3, 0.5]), ([0.9, 0.1, 0.0], [0.1, 0.1, 0.8]), ([0.25, 0.25, 0.5], [0.5, 0.5, 0.0])]
    for p, q in ((torch.tensor(a), torch.tensor(b)) for a, b in cases):
        take, left = fn(p, q)
        assert take.shape == left.shape == p.shape, (
            f"two rows of {len(p)} numbers, got {tuple(take.shape)} and {tuple(left.shape)}")
        assert math.isclose(float(left.sum()), 1, abs_tol=1e-5), f"what is drawn from adds up to 1, got {left.sum():.3f}"
        comes = q * take + (1 - (q * take).sum()) * left
        assert torch.allclose(comes, p, atol=1e-5), (
            f"p = {p.tolist()}, q = {q.tolist()}: what comes out must be distributed as p, but it is "
            f"{[round(x, 3) for x in comes.tolist()]}")
        assert math.isclose(float((q * take).sum()), float(torch.minimum(p, q).sum()), abs_tol=1e-5), (
            "the draft could be taken more often and what comes out would still be distributed as p")


# ---------------------------------------------------------------- what a shelf is worth

def shelf_bits(count: int, compartments: int = 9, kinds: int = 16, walls: int = 4) -> float:
    """-log2 of the chance of a shelf with `count` things."""
    where = math.comb(compartments, count)
    return math.log2(walls) + math.log2(compartments + 1) + math.log2(where) + count * math.log2(kinds)


def _forgets_where(count, compartments=9, kinds=16, walls=4):
    return shelf_bits(count, compartments, kinds, walls) - math.log2(math.comb(compartments, count))


def _forgets_how_many(count, compartments=9, kinds=16, walls=4):
    return shelf_bits(count, compartments, kinds, walls) - math.log2(compartments + 1)


def _every_compartment_alike(count, compartments=9, kinds=16, walls=4):
    return math.log2(walls) + compartments * math.log2(kinds + 1)


def _in_order(count, compartments=9, kinds=16, walls=4):
    return shelf_bits(count, compartments, kinds, walls) + math.log2(math.factorial(count))


def _ten_numbers_are_nine(count, compartments=9, kinds=16, walls=4):
    return shelf_bits(count, compartments, kinds, walls) - math.log2(compartments + 1) + math.log2(compartments)


@register("12.shelf_bits", reference=shelf_bits, minutes=6, difficulty=2,
          wrong=[_forgets_where, _forgets_how_many, _every_compartment_alike, _in_order, _ten_numbers_are_nine],
          hint="four draws, one after another: the wall, how many things, in which compartments, and what each is; bits add up")
def check_shelf_bits(fn):
    for count, compartments, kinds, walls, ways in [(0, 9, 16, 4, 4 * 10), (1, 9, 16, 4, 4 * 10 * 9 * 16),
                                                    (3, 9, 16, 4, 4 * 10 * 84 * 16**3), (2, 3, 5, 2, 2 * 4 * 3 * 25)]:
        got, due = fn(count, compartments, kinds, walls), math.log2(ways)
        assert math.isclose(got, due, rel_tol=1e-9), (
            f"{count} things in {compartments} compartments, {kinds} kinds, {walls} walls: one of {ways:,} in this many draws, "
            f"{due:.3f} bits, got {got:.3f}")


# ---------------------------------------------------------------- when a beginning is good enough

def _counts_the_bad(errors, allowed):
    return 1 + (errors[:, :-1] > allowed).sum(1)


def _from_zero(errors, allowed):
    return first_good(errors, allowed) - 1


def _gives_up_at_one(errors, allowed):
    return 1 + (errors <= allowed).int().argmax(1)


def _the_best(errors, allowed):
    return 1 + errors.argmin(1)


def _the_longest(errors, allowed):
    return errors.shape[1] - (errors <= allowed).flip(1).int().argmax(1)


@register("12.first_good", reference=first_good, minutes=6, difficulty=2,
          wrong=[_counts_the_bad, _from_zero, _gives_up_at_one, _the_best, _the_longest],
          hint="argmax of a row of zeros and ones is the place of the first one; what if there is none?")
def check_first_good(fn):
    for errors, due, why in [([[.5, .09, .03]], [2], "two tokens are good enough"), ([[.05, .04, .03]], [1], "one is"),
                             ([[.5, .4, .3]], [3], "none is, so it gets all"),
                             ([[.5, .1, .2]], [2], "the limit itself is allowed, and what comes later does not matter"),
                             ([[.5, .09, .3, .01], [.5, .4, .3, .2]], [2, 4], "each row by itself")]:
        got = fn(torch.tensor(errors), 0.1)
        assert got.tolist() == due, f"errors {errors}, allowed .1: {due} ({why}), got {got.tolist()}"


# ---------------------------------------------------------------- what is saved by leaving early

def share_of_depth(blocks: float, layers: int) -> float:
    """Full price for the blocks that a token goes through, keys and values for the others."""
    return (blocks + (layers - blocks) / 6) / layers


def _others_cost_nothing(blocks, layers):
    return blocks / layers


def _what_is_saved(blocks, layers):
    return 1 - share_of_depth(blocks, layers)


def _keys_without_values(blocks, layers):
    return (blocks + (layers - blocks) / 12) / layers


def _the_whole_attention(blocks, layers):
    return (blocks + (layers - blocks) / 3) / layers


def _in_blocks(blocks, layers):
    return layers * share_of_depth(blocks, layers)


@register("12.share_of_depth", reference=share_of_depth, minutes=5, difficulty=1,
          wrong=[_others_cost_nothing, _what_is_saved, _keys_without_values, _the_whole_attention, _in_blocks],
          hint="full price for the blocks that it goes through, a sixth of it for the others")
def check_share_of_depth(fn):
    for blocks, layers, due, why in [(6, 6, 1.0, "who goes all the way pays all"), (0, 12, 1 / 6, "keys and values alone"),
                                     (1, 6, 11 / 36, "one block of six, and five sixths of a block"),
                                     (2.5, 6, (2.5 + 3.5 / 6) / 6, "blocks may be a mean")]:
        got = fn(blocks, layers)
        assert math.isclose(got, due, rel_tol=1e-6), f"{blocks} of {layers} blocks: {due:.4f} ({why}), got {got:.4f}"


# ---------------------------------------------------------------- how unsure a model is

def unsure(logits: torch.Tensor) -> torch.Tensor:
    """Logits (..., V) -> the entropy in bits (...)."""
    logs = logits.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1) / math.log(2)


def _in_nats(logits):
    return unsure(logits) * math.log(2)


def _of_the_likeliest(logits):
    return -logits.log_softmax(-1).amax(-1) / math.log(2)


def _negative(logits):
    return -unsure(logits)


def _without_softmax(logits):
    return -(logits.softmax(-1) * logits).sum(-1) / math.log(2)


def _the_mean_surprise(logits):
    return -logits.log_softmax(-1).mean(-1) / math.log(2)


@register("12.unsure", reference=unsure, minutes=7, difficulty=2,
          wrong=[_in_nats, _of_the_likeliest, _negative, _without_softmax, _the_mean_surprise],
          hint="minus the sum of p log2 p; log_softmax gives natural logarithms, and a bit is ln 2 of them")
def check_unsure(fn):
    for p, due in [([0.5, 0.5], 1.0), ([0.25] * 4, 2.0), ([0.5, 0.25, 0.125, 0.125], 1.75), ([0.9, 0.1], 0.46899559)]:
        logits = torch.tensor([p, p], dtype=torch.double).log() + 3.0       # the same whatever is added to all
        got = fn(logits)
        assert got.shape == (2,), f"logits (2, {len(p)}) give two numbers, got the shape {tuple(got.shape)}"
        assert torch.allclose(got, torch.full((2,), due, dtype=torch.double), atol=1e-5), (
            f"probabilities {p}: {due:.3f} bits, got {float(got[0]):.3f}")
