"""Exercises of chapter 11: when a group teaches anything, what an answer counts, how likely it was when it was drawn, a
preference, how far a model has gone, and a reward of one's own."""
import math

import torch
import torch.nn.functional as F

from mmcourse.exercises import register


def _slip(got, slips, *args, tolerance=1e-5) -> str:
    """What was mistaken, as `: sentence`, if a known slip gives just this number."""
    for wrong, said in slips:
        if abs(got - float(wrong(*args))) < tolerance:
            return f": {said}"
    return ""


def _number(given, what="one number is asked for") -> float:
    """A learner's number, whether it is a float, an array or a tensor of one element."""
    values = torch.as_tensor(given).flatten()
    assert len(values) == 1, f"{what}, {len(values)} came"
    return float(values[0])


# ---------------------------------------------------------------- when a group teaches anything

def contrast(p, g) -> float:
    """How likely a group of g answers has right and wrong ones, each right with probability p."""
    return 1 - p**g - (1 - p)**g


def _not_all_right(p, g):
    return 1 - p**g


def _at_least_one_right(p, g):
    return 1 - (1 - p)**g


def _all_alike(p, g):
    return p**g + (1 - p)**g


def _as_if_independent(p, g):
    return (1 - p**g) * (1 - (1 - p)**g)


def _of_a_pair(p, g):
    return 2 * p * (1 - p)


def _exactly_one_right(p, g):
    return g * p * (1 - p)**(g - 1)


def _one_more(p, g):
    return contrast(p, g + 1)


@register("11.contrast", reference=contrast, minutes=4, difficulty=1,
          wrong=[_not_all_right, _at_least_one_right, _all_alike, _as_if_independent, _of_a_pair, _exactly_one_right, _one_more],
          hint="there is no contrast if all g are right, p ** g, or all g are wrong; both cannot happen at once")
def check_contrast(fn):
    slips = ((_not_all_right, "a group that is all wrong has no contrast either"),
             (_at_least_one_right, "a group that is all right has no contrast either"),
             (_all_alike, "that is how likely a group has *no* contrast"),
             (_as_if_independent, "'not all right' and 'not all wrong' are not independent: subtract both from 1"),
             (_of_a_pair, "that is a group of two"),
             (_exactly_one_right, "that is exactly one right answer; two right and the rest wrong is a contrast too"),
             (_one_more, "that is a group with one more answer"))
    for p, g in ((0.3, 3), (0.9, 8), (0.05, 8), (0.5, 2), (0.2, 16), (0.3, 1), (0.0, 4), (1.0, 4)):
        got, expected = _number(fn(p, g)), contrast(p, g)
        assert abs(got - expected) < 1e-6, (f"a pass rate of {p} in groups of {g}: {expected:.4f} is right, {got:.4f} came"
                                            f"{_slip(got, slips, p, g)}")


# ---------------------------------------------------------------- what an answer counts

def group_advantages(rewards) -> list:
    """Each reward minus the mean of its group."""
    return [[reward - sum(group) / len(group) for reward in group] for group in rewards]


def _over(group, degrees):
    mean = sum(group) / len(group)
    return math.sqrt(sum((reward - mean)**2 for reward in group) / (len(group) - degrees)) + 1e-8


def _standardized(rewards):
    return [[a / _over(group, 0) for a in row] for row, group in zip(group_advantages(rewards), rewards)]


def _standardized_sample(rewards):
    return [[a / _over(group, 1) for a in row] for row, group in zip(group_advantages(rewards), rewards)]


def _minus_the_batch(rewards):
    every = [reward for group in rewards for reward in group]
    return [[reward - sum(every) / len(every) for reward in group] for group in rewards]


def _minus_the_others(rewards):
    return [[reward - (sum(group) - reward) / (len(group) - 1) for reward in group] for group in rewards]


def _turned_round(rewards):
    return [[-a for a in row] for row in group_advantages(rewards)]


def _minus_the_best(rewards):
    return [[reward - max(group) for reward in group] for group in rewards]


def _minus_the_worst(rewards):
    return [[reward - min(group) for reward in group] for group in rewards]


def _minus_the_median(rewards):
    middle = [sorted(group)[(len(group) - 1) // 2] + sorted(group)[len(group) // 2] for group in rewards]
    return [[reward - m / 2 for reward in group] for group, m in zip(rewards, middle)]


def _down_the_columns(rewards):
    columns = [sum(column) / len(column) for column in zip(*rewards)]
    return [[reward - mean for reward, mean in zip(group, columns)] for group in rewards]


def _no_baseline(rewards):
    return [list(group) for group in rewards]


def _writes_into_them(rewards):
    for group, row in zip(rewards, group_advantages(rewards)):
        group[:] = row
    return rewards


def _same(one, other) -> bool:
    return all(abs(a - b) < 1e-5 for left, right in zip(one, other) for a, b in zip(left, right))


@register("11.advantages", reference=group_advantages, minutes=5, difficulty=1,
          wrong=[_standardized, _standardized_sample, _minus_the_batch, _minus_the_others, _turned_round, _minus_the_best,
                 _minus_the_worst, _minus_the_median, _down_the_columns, _no_baseline, _writes_into_them],
          hint="for each group: mean = sum(group) / len(group), and then reward - mean for each of its rewards")
def check_advantages(fn):
    divided = "do not divide by the standard deviation: it makes nearly solved and hopeless questions count most"
    slips = ((_standardized, divided), (_standardized_sample, divided),
             (_minus_the_batch, "each group has its own mean: a hard question is no fault of its answers"),
             (_minus_the_others, "that is leave-one-out, the mean of the *others*; here the mean is the whole group's"),
             (_turned_round, "better than the mean is positive: reward minus mean"),
             (_minus_the_best, "compare with the group's mean, not with its best"),
             (_minus_the_worst, "compare with the group's mean, not with its worst"),
             (_minus_the_median, "compare with the mean, not with the median"),
             (_down_the_columns, "an inner list is a group: its mean is over the answers to one question"),
             (_no_baseline, "those are the rewards themselves: take the mean of each group off"))
    for rewards in ([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0], [0.5, 0.2, 0.9, 0.4]], [[2.0, -1.0, 4.0]],
                    [[0, 1], [1, 0], [5, 7]], [[0.3, 0.3, 0.3], [1.0, 0.0, 0.0]]):
        given = [list(group) for group in rewards]
        answer = fn(given)
        assert given == rewards, "you changed the rewards that you were given: make new lists"
        assert len(answer) == len(rewards) and all(hasattr(row, "__len__") and len(row) == len(rewards[0]) for row in answer), (
            f"give back a list of {len(rewards)} lists of {len(rewards[0])} numbers, as the rewards are")
        got, expected = [[float(a) for a in row] for row in answer], group_advantages(rewards)
        why = next((f": {said}" for wrong, said in slips if _same(got, wrong(rewards))), "")
        assert _same(got, expected), f"for the rewards {rewards}: {_rounded(expected)} is right, {_rounded(got)} came{why}"


def _rounded(rows) -> list:
    return [[round(x, 3) for x in row] for row in rows]


# ---------------------------------------------------------------- how likely it was when it was drawn

def sampled_log_prob(logits, allowed, temperature, token) -> float:
    """log-probability of a token under the distribution that was sampled: masked, at its temperature."""
    return (logits / temperature).masked_fill(~allowed, -torch.inf).log_softmax(-1)[token]


def _masked_afterwards(logits, allowed, temperature, token):
    return ((logits / temperature).softmax(-1) * allowed)[token].log()


def _no_mask(logits, allowed, temperature, token):
    return (logits / temperature).log_softmax(-1)[token]


def _no_temperature(logits, allowed, temperature, token):
    return sampled_log_prob(logits, allowed, 1.0, token)


def _neither(logits, allowed, temperature, token):
    return logits.log_softmax(-1)[token]


def _times_the_temperature(logits, allowed, temperature, token):
    return sampled_log_prob(logits, allowed, 1 / temperature, token)


def _temperature_afterwards(logits, allowed, temperature, token):
    return sampled_log_prob(logits, allowed, 1.0, token) / temperature


def _masked_with_zero(logits, allowed, temperature, token):
    return (logits * allowed / temperature).log_softmax(-1)[token]


def _masks_what_is_allowed(logits, allowed, temperature, token):
    return (logits / temperature).masked_fill(allowed, -torch.inf).log_softmax(-1)[token]


def _the_probability(logits, allowed, temperature, token):
    return sampled_log_prob(logits, allowed, temperature, token).exp()


def _the_loss(logits, allowed, temperature, token):
    return -sampled_log_prob(logits, allowed, temperature, token)


def _in_bits(logits, allowed, temperature, token):
    return sampled_log_prob(logits, allowed, temperature, token) / math.log(2)


def _into_the_logits(logits, allowed, temperature, token):
    logits[~allowed] = -torch.inf
    return (logits / temperature).log_softmax(-1)[token]


def _overflows(logits, allowed, temperature, token):
    weights = (logits / temperature).exp() * allowed
    return (weights[token] / weights.sum()).log()


@register("11.sampled", reference=sampled_log_prob, minutes=8, difficulty=2,
          wrong=[_masked_afterwards, _no_mask, _no_temperature, _neither, _times_the_temperature, _temperature_afterwards,
                 _masked_with_zero, _masks_what_is_allowed, _the_probability, _the_loss, _in_bits, _into_the_logits, _overflows],
          hint="do what the sampler does, in its order: logits / temperature, then .masked_fill(~allowed, -torch.inf), then "
               ".log_softmax(-1), and of that the token")
def check_sampled(fn):
    slips = ((_no_mask, "what is not allowed still has its share: the mask is forgotten, or comes after the softmax and the rest "
                        "does not add up to 1; mask the logits"),
             (_no_temperature, "the temperature is forgotten"),
             (_neither, "that is the plain model's: the sampler had a mask and a temperature"),
             (_times_the_temperature, "divide by the temperature: a small one makes the likely likelier"),
             (_temperature_afterwards, "divide the logits by the temperature, before the softmax, not its result"),
             (_masked_with_zero, "a logit of 0 is no ban: what is not allowed gets -torch.inf"),
             (_the_probability, "that is the probability: its logarithm is asked for"),
             (_the_loss, "a log-probability is 0 at most: without the minus"),
             (_in_bits, "those are bits: take the natural logarithm"))
    ids = torch.arange(8)
    made = [(torch.randn(8, generator=torch.Generator().manual_seed(seed)) * 2 + 1, ids % 3 != seed % 3, t, token)
            for seed, (t, token) in enumerate(((0.7, 2), (1.6, 0), (1.0, 4), (0.25, 7)))]
    large = torch.tensor([900.0, 899.0, 0.0, 901.0]), torch.tensor([True, True, True, False]), 0.5, 1
    for logits, allowed, temperature, token in (*made, large):
        given = logits.clone()
        got = _number(fn(given, allowed.clone(), temperature, token))
        assert torch.equal(given, logits), "you changed the logits that you were given: masked_fill without _ makes new ones"
        expected = float(sampled_log_prob(logits, allowed, temperature, token))
        shown = (f"logits {[round(x, 2) for x in logits.tolist()]}, allowed {ids[:len(logits)][allowed].tolist()}, temperature "
                 f"{temperature}, token {token}")
        said = f"{shown}: {expected:.4f} is right, {got:.4f} came"
        assert got > -math.inf or math.isnan(got), f"{said}: the token was allowed; fill where it is *not*, ~allowed"
        assert math.isfinite(got), f"{said}: exp of such numbers is too large for a float; log_softmax takes care of that"
        assert abs(got - expected) < 1e-4, f"{said}{_slip(got, slips, logits, allowed, temperature, token, tolerance=1e-4)}"


# ---------------------------------------------------------------- a preference

def preference(better, worse, better_before, worse_before, beta):
    """DPO's loss (Rafailov et al. 2023): the better answers shall have gained more than the worse."""
    margin = (better - better_before) - (worse - worse_before)          # (n,)
    return -F.logsigmoid(beta * margin).mean()


def _without_before(better, worse, better_before, worse_before, beta):
    return -F.logsigmoid(beta * (better - worse)).mean()


def _prefers_the_worse(better, worse, better_before, worse_before, beta):
    return preference(worse, better, worse_before, better_before, beta)


def _adds_what_was_before(better, worse, better_before, worse_before, beta):
    return -F.logsigmoid(beta * (better - worse + better_before - worse_before)).mean()


def _without_beta(better, worse, better_before, worse_before, beta):
    return preference(better, worse, better_before, worse_before, 1.0)


def _beta_outside(better, worse, better_before, worse_before, beta):
    return beta * preference(better, worse, better_before, worse_before, 1.0)


def _added_up(better, worse, better_before, worse_before, beta):
    return preference(better, worse, better_before, worse_before, beta) * len(better)


def _mean_margin(better, worse, better_before, worse_before, beta):
    return -F.logsigmoid(beta * (better - better_before - worse + worse_before).mean())


def _without_logarithm(better, worse, better_before, worse_before, beta):
    return -torch.sigmoid(beta * (better - better_before - worse + worse_before)).mean()


def _margin_alone(better, worse, better_before, worse_before, beta):
    return -beta * (better - better_before - worse + worse_before).mean()


def _forgets_the_minus(better, worse, better_before, worse_before, beta):
    return -preference(better, worse, better_before, worse_before, beta)


def _better_alone(better, worse, better_before, worse_before, beta):
    return -F.logsigmoid(beta * (better - better_before)).mean()


def _each_pair(better, worse, better_before, worse_before, beta):
    return -F.logsigmoid(beta * (better - better_before - worse + worse_before))


def _underflows(better, worse, better_before, worse_before, beta):
    return -torch.sigmoid(beta * (better - better_before - worse + worse_before)).log().mean()


@register("11.preference", reference=preference, minutes=8, difficulty=3,
          wrong=[_without_before, _prefers_the_worse, _adds_what_was_before, _without_beta, _beta_outside, _added_up,
                 _mean_margin, _without_logarithm, _margin_alone, _forgets_the_minus, _better_alone, _each_pair, _underflows],
          hint="what an answer gained is its log-probability now minus that before; the margin is what the better one gained "
               "minus what the worse one gained; F.logsigmoid(beta * margin) of each pair, and minus its mean")
def check_preference(fn):
    slips = ((_without_before, "what counts is what an answer *gained*: take its log-probability before off"),
             (_prefers_the_worse, "that prefers the worse answers: the margin is the better one's gain minus the worse one's"),
             (_adds_what_was_before, "a gain is now *minus* before"),
             (_without_beta, "beta is forgotten"),
             (_beta_outside, "beta belongs inside, times the margin: outside it only scales the loss"),
             (_added_up, "take the mean over the pairs, not the sum"),
             (_mean_margin, "logsigmoid of each pair first, the mean last"),
             (_without_logarithm, "that is the sigmoid: its logarithm is missing"),
             (_margin_alone, "that is the margin alone: it goes through F.logsigmoid"),
             (_forgets_the_minus, "a loss is to fall: minus the mean"),
             (_better_alone, "the worse answers are forgotten"))
    def pairs(seed, n):
        return [-30 * torch.rand(n, generator=torch.Generator().manual_seed(10 * seed + i)) for i in range(4)]
    hopeless = [*torch.tensor([[-900.0, -20.0], [-3.0, -30.0], [-2.0, -21.0], [-800.0, -29.0]])]
    for parts, beta in ((pairs(1, 5), 0.1), (pairs(2, 3), 0.5), (pairs(3, 1), 0.3), (hopeless, 0.1)):
        kept = [part.clone() for part in parts]
        answer = fn(*parts, beta)
        assert all(map(torch.equal, kept, parts)), "you changed the tensors that you were given"
        got = _number(answer, f"for {len(parts[0])} pairs one number is asked for, the mean of their losses")
        expected, n = float(preference(*parts, beta)), len(parts[0])
        shown = f"{n} pairs with beta {beta}, of which the first has log-probabilities {[round(float(p[0]), 2) for p in parts]}"
        assert math.isfinite(got), (f"{shown}: {expected:.4f} is right, {got} came: the sigmoid of a very negative number is 0, "
                                    "and its logarithm is lost; F.logsigmoid takes care of that")
        assert abs(got - expected) < 1e-4 * max(1, abs(expected)), (
            f"{shown}: {expected:.4f} is right, {got:.4f} came{_slip(got, slips, *parts, beta, tolerance=1e-4)}")
    now = torch.full((2,), -5.0, requires_grad=True)
    loss = fn(now, now.detach() - 1, now.detach(), now.detach() - 1, 0.1)
    assert isinstance(loss, torch.Tensor) and loss.requires_grad, (
        "the loss must lead back to the log-probabilities: compute with tensors, without float(), .item() or .detach()")


# ---------------------------------------------------------------- how far a model has gone

def kl_estimate(now, reference):
    """Schulman's estimator of KL(now || reference) from tokens that were sampled from now: never negative."""
    away = reference - now                                              # (tokens,)
    return (away.exp() - 1 - away).mean()


def _other_way_round(now, reference):
    return kl_estimate(reference, now)


def _plain(now, reference):
    return (now - reference).mean()


def _plain_turned(now, reference):
    return (reference - now).mean()


def _half_the_square(now, reference):
    return (now - reference).square().mean() / 2


def _square(now, reference):
    return (now - reference).square().mean()


def _absolute(now, reference):
    return (now - reference).abs().mean()


def _without_the_1(now, reference):
    return ((reference - now).exp() - (reference - now)).mean()


def _ratio_minus_1(now, reference):
    return ((reference - now).exp() - 1).mean()


def _plus_away(now, reference):
    return ((reference - now).exp() - 1 + (reference - now)).mean()


def _weighted_again(now, reference):
    return (now.exp() * (now - reference)).mean()


def _sum_of_all(now, reference):
    return kl_estimate(now, reference) * len(now)


def _of_the_mean(now, reference):
    return kl_estimate(now.mean(), reference.mean())


@register("11.kl", reference=kl_estimate, minutes=6, difficulty=2,
          wrong=[_other_way_round, _plain, _plain_turned, _half_the_square, _square, _absolute, _without_the_1, _ratio_minus_1,
                 _plus_away, _weighted_again, _sum_of_all, _of_the_mean],
          hint="away = reference - now; then the mean of away.exp() - 1 - away")
def check_kl(fn):
    slips = ((_other_way_round, "the tokens were drawn from *now*: the exponent is reference - now"),
             (_plain, "that is the plain estimator, now - reference: right on average too, but below 0 for single tokens"),
             (_plain_turned, "that is minus the plain estimator"),
             (_half_the_square, "that is half the square: close for small steps, but not right on average"),
             (_square, "that is the square: not right on average"),
             (_absolute, "that is the mean absolute difference"),
             (_without_the_1, "with the same model twice it must be 0: take 1 off"),
             (_ratio_minus_1, "that is 0 on average, whatever the models are: take reference - now off as well"),
             (_plus_away, "take reference - now off, do not add it"),
             (_weighted_again, "likely tokens come more often already: do not weigh them by their probability again"),
             (_sum_of_all, "take the mean over the tokens, not the sum"),
             (_of_the_mean, "estimate at each token first, and take the mean last"))
    def tokens(seed, n):
        return -4 * torch.rand(n, generator=torch.Generator().manual_seed(seed))
    for now, reference in ((tokens(1, 6), tokens(2, 6)), (tokens(3, 3), tokens(4, 3) - 0.5), (tokens(5, 4), tokens(5, 4)),
                           (torch.tensor([-0.5, -2.0]), torch.tensor([-2.5, -0.25]))):
        before = now.clone(), reference.clone()
        got, expected = _number(fn(now, reference)), float(kl_estimate(now, reference))
        assert torch.equal(before[0], now) and torch.equal(before[1], reference), "you changed the tensors that you were given"
        shown = f"now {[round(x, 2) for x in now.tolist()]}, reference {[round(x, 2) for x in reference.tolist()]}"
        assert abs(got - expected) < 1e-5, (f"{shown}: {expected:.4f} is right, {got:.4f} came"
                                            f"{_slip(got, slips, now, reference)}")


# ---------------------------------------------------------------- a reward

PARTS = ("noun", "count", "place", "ground")


def reward(seen, asked) -> float:
    """The share of the four parts of a scene that are as they were asked for."""
    return sum(seen[part] == asked[part] for part in PARTS) / len(PARTS)


def _all_or_nothing(seen, asked):
    return float(all(seen[part] == asked[part] for part in PARTS))


def _noun_first(seen, asked):
    return reward(seen, asked) * (seen["noun"] == asked["noun"])


def _noun_counts_double(seen, asked):
    return (4 * reward(seen, asked) + (seen["noun"] == asked["noun"])) / 5


def _three_parts(seen, asked):
    return sum(seen[part] == asked[part] for part in ("noun", "place", "ground")) / 3


def _not_a_share(seen, asked):
    return 4 * reward(seen, asked)


def _nearly_counts(seen, asked):
    near = max(0.0, 1 - abs((seen["count"] or 0) - asked["count"]) / 3)
    return (sum(seen[part] == asked[part] for part in ("noun", "place", "ground")) + near) / 4


def _more_is_better(seen, asked):
    return (sum(seen[part] == asked[part] for part in ("noun", "place", "ground")) + ((seen["count"] or 0) >= asked["count"])) / 4


def _anywhere(seen, asked):
    return len(set(seen.values()) & set(asked.values())) / 4


def _of_what_is_seen(seen, asked):
    shown = [part for part in PARTS if seen[part] is not None]
    return sum(seen[part] == asked[part] for part in shown) / max(len(shown), 1)


def _whatever_is_there(seen, asked):
    return sum(seen[part] is not None for part in PARTS) / 4


def _until_the_first_mistake(seen, asked):
    for i, part in enumerate(PARTS):
        if seen[part] != asked[part]:
            return i / 4
    return 1.0


def _punishes(seen, asked):
    return 2 * reward(seen, asked) - 1


def _forgives_a_part(seen, asked):
    return min(1.0, 4 * reward(seen, asked) / 3)


@register("11.reward", reference=reward, minutes=8, difficulty=2,
          wrong=[_all_or_nothing, _noun_first, _noun_counts_double, _three_parts, _not_a_share, _nearly_counts, _more_is_better,
                 _anywhere, _of_what_is_seen, _whatever_is_there, _until_the_first_mistake, _punishes, _forgives_a_part],
          hint="ask of each of the four parts whether seen and asked have the same, add the four answers (True counts 1), and "
               "divide by 4")
def check_reward(fn):
    slips = ((_all_or_nothing, "that is all or nothing: a group of drawings that are all nearly right would teach nothing"),
             (_noun_first, "a wrong noun must not wipe out the other parts: each is worth a quarter by itself"),
             (_noun_counts_double, "each part has the same share: the noun counts no more than the others"),
             (_three_parts, "the count is forgotten: a model would soon draw any number of things"),
             (_not_a_share, "a reward lies in [0, 1]: divide by the number of parts"),
             (_nearly_counts, "a count is right or wrong: part of a point for being close is a point that can be hacked"),
             (_more_is_better, "more than was asked for is wrong too"),
             (_anywhere, "compare each part with the same part: seen[part] == asked[part]"),
             (_of_what_is_seen, "what was not recognised is wrong, not left out: else one clear part and three smears earn 1"),
             (_whatever_is_there, "compare with what was asked for"),
             (_until_the_first_mistake, "go on after the first mistake: the order of the parts means nothing"),
             (_punishes, "a reward lies in [0, 1]: a wrong part earns nothing, it costs nothing"),
             (_forgives_a_part, "1 is for a drawing of which all is right"))
    bees, crab = (dict(zip(PARTS, values)) for values in (("bee", 2, "left", "blue"), ("crab", 3, "", "red")))
    changes = [{}, {"ground": "red"}, {"count": 1}, {"count": 3}, {"noun": "cat"}, {"noun": "cat", "place": "right"},
               {"place": None}, {"count": None, "place": None, "ground": None}, {"noun": None, "count": None},
               {"noun": "blue", "ground": "bee"}, {"noun": "key", "count": 1, "place": "right"},
               {"noun": "key", "count": 1, "place": "right", "ground": "green"}, dict.fromkeys(PARTS)]
    cases, came = [({**asked, **change}, asked) for asked in (bees, crab) for change in changes], []
    for seen, asked in cases:
        before = dict(seen), dict(asked)
        came.append(_number(fn(seen, asked)))
        assert (seen, asked) == before, "you changed the dicts that you were given"
    # several slips give the same number in one case: the one that gives all numbers is named
    why = next((f": {said}" for wrong, said in slips
                if all(abs(got - wrong(*case)) < 1e-6 for got, case in zip(came, cases))), "")
    for got, (seen, asked) in zip(came, cases):
        expected = reward(seen, asked)
        assert abs(got - expected) < 1e-6, (f"asked {list(asked.values())}, seen {list(seen.values())}: {expected:.2f} is "
                                            f"right, {got:.2f} came{why}")
