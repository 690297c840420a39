"""Post-training: the estimator is the exact gradient where that can be enumerated, the log-probabilities are those that were
sampled, each method is its formula, and what goes wrong is said and harms nothing.

The oracle is a policy of two tokens x three ids: 9 answers, all groups of which can be written down with their probabilities.
"""
import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import SMALL, wild_model
from scipy import stats
from torch import nn

from mmcourse import generate as generating
from mmcourse import posttraining
from mmcourse.generate import content_limit, generate, modality_mask
from mmcourse.optim import Optim
from mmcourse.posttraining import (
    METHODS,
    Method,
    Practice,
    Question,
    Task,
    advantages,
    allowed_ids,
    any_one,
    best_alone,
    best_and_worst,
    has_contrast,
    mark,
    policy_loss,
    post_train,
    preference_loss,
    roll_out,
    sampled_log_probs,
    where_they_differ,
    written,
)
from mmcourse.training import Run
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import CLOSE, OPEN, Segment, Vocabulary

TINY = Vocabulary(text=3, image=3, audio=2, audio_levels=2, image_tokens=2)            # a picture: two tokens x three ids
PROMPT = (Segment("text", (1,)),)
PAINT = Question(PROMPT, "image", answer=Segment("image", (1, 2)))
ANSWERS = [Segment("image", pair) for pair in itertools.product(range(3), repeat=2)]
WORTH = torch.tensor([0.0, 1.0, 0.3, -0.7, 2.0, 0.0, 0.1, 0.9, 0.4])                   # the reward of each of the 9
ALLOWED = allowed_ids(TINY)
QUIET = Run(progress=False, log_every=1)


def rng(seed=0):
    return np.random.default_rng(seed)


class Table(nn.Module):
    """The simplest policy: the logits of each of the two tokens, whatever was asked and said before."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.table = nn.Parameter(torch.randn((2, 3), generator=generator, dtype=torch.double))
        self.head, self.device = nn.Identity(), torch.device("cpu")

    def hidden(self, ids):
        """(N, T) -> logits (N, T, vocab), of the answer that begins behind the opening token."""
        out, start = self.table.new_zeros((*ids.shape, TINY.size)), ids[0].tolist().index(OPEN["image"])
        span = TINY.ranges["image"]
        for j in (0, 1):
            out[:, start + j, span.start:span.stop] = self.table[j]
        return out


def tiny_transformer(seed=0, scale=8.0, **changes):
    """Random and opinionated, in double precision."""
    torch.manual_seed(seed)
    model = Transformer(TINY.size, **{"width": 8, "layers": 1, "heads": 2, "context": 128,
                                      "segment_starts": tuple(OPEN.values()), **changes})
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" not in name:
                p.mul_(scale)
    return model.eval()


POLICIES = {"table": Table, "transformer": lambda: tiny_transformer().double()}
both = pytest.mark.parametrize("policy", POLICIES)


def answers_of(model, temperature=1.0):
    """log-probability of each of the 9 answers, (9,), by the rule of the product."""
    rollouts = written(TINY, [PAINT] * 9, ANSWERS)
    return sampled_log_probs(model, rollouts.ids, rollouts.places, ALLOWED, temperature)[0].sum(1)


def gradient(model, value):
    """The gradient of a scalar as one vector."""
    parts = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, retain_graph=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(model.parameters(), parts)])


def all_groups(g):
    """Every group of g answers: indices (9 ** g, g)."""
    return torch.tensor(list(itertools.product(range(9), repeat=g)))


def estimator_mean(model, g, count, temperature=1.0):
    """The mean of the estimator over all groups, each with its probability, as one gradient."""
    groups = all_groups(g)
    chance = answers_of(model, temperature).detach().exp()[groups].prod(1)             # (n,)
    assert chance.sum().item() == pytest.approx(1)
    flat = groups.flatten().tolist()
    rollouts = written(TINY, [PAINT] * len(flat), [ANSWERS[i] for i in flat])
    counts = count(WORTH.double()[groups]) * chance[:, None] / g                       # (n, g)
    counts = counts.flatten()[:, None] * (rollouts.places >= 0)
    loss = policy_loss(model, rollouts.ids, rollouts.places, counts, torch.zeros_like(counts), allowed=ALLOWED,
                       temperature=temperature)["loss"]
    return -gradient(model, loss)


# ---------------------------------------------------------------- the exact oracle

@both
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("g", [1, 2, 3])
def test_the_mean_of_the_estimator_is_the_gradient_of_the_expected_reward(policy, temperature, g):
    model = POLICIES[policy]()
    exact = gradient(model, (answers_of(model, temperature).exp() * WORTH).sum())
    assert exact.norm() > 0.01
    torch.testing.assert_close(estimator_mean(model, g, lambda rewards: rewards, temperature), exact, rtol=1e-9, atol=1e-12)


@both
@pytest.mark.parametrize("g", [2, 3])
def test_with_the_group_mean_as_baseline_it_is_g_minus_1_of_g_of_it(policy, g):
    """Each answer is in the mean that it is compared with; leaving it out would cost nothing of the gradient."""
    model = POLICIES[policy]()
    exact = gradient(model, (answers_of(model).exp() * WORTH).sum())
    with_mean = estimator_mean(model, g, lambda rewards: advantages(rewards, rng()))
    torch.testing.assert_close(with_mean, exact * (g - 1) / g, rtol=1e-9, atol=1e-12)
    leave_one_out = estimator_mean(model, g, lambda rewards: rewards - (rewards.sum(1, keepdim=True) - rewards) / (g - 1))
    torch.testing.assert_close(leave_one_out, exact, rtol=1e-9, atol=1e-12)


def test_dividing_by_the_standard_deviation_gives_another_gradient():
    """The control: the oracle tells the estimators apart. This one does not point the same way."""
    model = Table()
    exact = gradient(model, (answers_of(model).exp() * WORTH).sum())
    divided = estimator_mean(model, 3, lambda r: (r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True) + 1e-6))
    assert F.cosine_similarity(divided, exact, dim=0) < 0.999


@both
def test_the_probabilities_of_a_policy_are_those_of_its_table(policy):
    """log p = sum of log-softmaxes, by hand; the closing token is certain."""
    model = POLICIES[policy]()
    log_p = answers_of(model)
    assert log_p.dtype == torch.double and log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)
    if policy == "table":
        by_hand = [model.table[0].log_softmax(0)[a.ids[0]] + model.table[1].log_softmax(0)[a.ids[1]] for a in ANSWERS]
        torch.testing.assert_close(log_p, torch.stack(by_hand))


@both
def test_practice_brings_the_estimator_to_the_optimizer_unbroken(policy, monkeypatch):
    """All of a step but the dice: rewards, counts, the rows that are kept, the loss; divided by the tokens of a batch (2 groups)."""
    model, g = POLICIES[policy](), 2
    groups = all_groups(g).tolist()
    drawn = []
    monkeypatch.setattr(posttraining, "roll_out", lambda *args, **kwargs: written(
        TINY, [PAINT] * 2 * g, [ANSWERS[i] for i in drawn]))
    worth = dict(zip(ANSWERS, WORTH.tolist()))
    task = Task("toy", lambda rng, n: [PAINT] * n, lambda questions, answers: [worth[a] for a in answers])
    practice = Practice(model, TINY, [task], replace(METHODS["grpo"], group=g), prompts=2)
    chance, total = answers_of(model).detach().exp(), 0.0
    fixed = groups[13]                                                  # beside each group, always this one
    for group in groups:
        drawn[:] = group + fixed
        total = total - chance[group].prod() * gradient(model, practice.loss(model, *practice.batch(rng()))["loss"])
    exact = gradient(model, (answers_of(model).exp() * WORTH).sum())
    drawn[:] = [0, 0] + fixed                                           # the first group alike: this is the other one's share
    of_fixed = -gradient(model, practice.loss(model, *practice.batch(rng()))["loss"])
    tokens = 2 * g * 3
    torch.testing.assert_close((total - of_fixed) * tokens / g, exact * (g - 1) / g, rtol=1e-5, atol=1e-7)


def test_advantages_add_up_to_zero_in_each_group_and_know_no_other_group():
    rewards = torch.randn((7, 8), dtype=torch.double)
    got = advantages(rewards, rng())
    assert got.shape == (7, 8) and got.sum(1).abs().max() < 1e-5
    assert torch.equal(got[2:3], advantages(rewards[2:3], rng()))
    torch.testing.assert_close(advantages(rewards + torch.arange(7.0)[:, None], rng()), got)
    torch.testing.assert_close(advantages(3 * rewards, rng()), 3 * got)
    assert advantages(rewards.float(), rng()).dtype == torch.float
    for g in range(1, 20):
        alike = torch.rand(50, 1).expand(50, g)
        assert torch.equal(advantages(alike, rng()), torch.zeros(50, g)), "exactly 0, or Adam makes a step of the remainder"


@both
def test_the_ratio_is_1_at_the_first_inner_step_and_leaves_1_after_a_step(policy):
    """With the ratio in its place the loss is 0 and its gradient is that of `policy_loss`: so the loss of GRPO says nothing."""
    model, group = POLICIES[policy](), [1, 4, 3, 8]
    rollouts = written(TINY, [PAINT] * 4, [ANSWERS[i] for i in group])
    worth = advantages(WORTH.double()[group][None], rng())[0]                          # (4,)
    answered = (rollouts.places >= 0).double()
    counts = worth[:, None] * answered / answered.sum()

    def log_probs():
        return sampled_log_probs(model, rollouts.ids, rollouts.places, ALLOWED)[0]
    old = log_probs().detach()
    ratio = (log_probs() - old).exp()
    assert torch.equal(ratio.detach(), torch.ones_like(ratio))
    surrogate = -(counts * ratio).sum()
    ours = policy_loss(model, rollouts.ids, rollouts.places, counts, old, allowed=ALLOWED)["loss"]
    assert surrogate.item() == pytest.approx(0, abs=1e-12)
    slope = gradient(model, ours)
    torch.testing.assert_close(gradient(model, surrogate), slope, rtol=1e-9, atol=1e-12)
    assert slope.norm() > 1e-3
    with torch.no_grad():
        start = 0
        for p in model.parameters():
            p -= 0.05 * slope[start:start + p.numel()].view_as(p)
            start += p.numel()
    moved = (log_probs() - old).sum(1).exp()                                           # of each answer
    assert (moved - 1).abs().max() > 1e-4
    assert -(counts * (log_probs() - old).exp()).sum() < 0, "the step goes downhill"


def test_the_value_of_the_loss_is_what_theory_says():
    """On average -(g - 1) / g times the covariance of reward and log-probability, a token: no measure of progress at all."""
    model, g = Table(), 2
    groups, log_p = all_groups(g), answers_of(model).detach()
    mean = 0.0
    for group in groups.tolist():
        rollouts = written(TINY, [PAINT] * g, [ANSWERS[i] for i in group])
        answered = (rollouts.places >= 0).double()
        counts = advantages(WORTH.double()[group][None], rng()).flatten()[:, None] * answered / answered.sum()
        loss = policy_loss(model, rollouts.ids, rollouts.places, counts, answered * 0, allowed=ALLOWED)["loss"]
        mean = mean + log_p[group].sum().exp() * loss.detach()
    p = log_p.exp()
    covariance = (p * WORTH * log_p).sum() - (p * WORTH).sum() * (p * log_p).sum()
    assert mean.item() == pytest.approx(-(g - 1) / g * covariance.item() / 3, rel=1e-9) and abs(mean) > 1e-3


@pytest.mark.parametrize("method", [name for name in METHODS if name != "sft"])
def test_groups_of_equal_reward_give_no_gradient(method):
    model = tiny_transformer()
    before = copy.deepcopy(model.state_dict())
    task = Task("all alike", lambda rng, n: [PAINT] * n, lambda questions, answers: [0.4] * len(answers))
    practice = Practice(model, TINY, [task], method, prompts=3)
    assert gradient(model, practice.loss(model, *practice.batch(rng()))["loss"]).abs().max() == 0
    history = post_train(model, TINY, [task], method, steps=3, run=QUIET)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert history.column("contrast") == [0, 0, 0] and history.column("reward") == pytest.approx([0.4] * 3)


def test_one_group_with_contrast_among_others_without_moves_the_model_alone(monkeypatch):
    """The rows of the other groups are left out of the work and change nothing of the gradient but its scale."""
    model, rewards = tiny_transformer().double(), []
    task = Task("toy", lambda rng, n: [PAINT] * n, lambda questions, answers: rewards)
    chosen = [0, 4, 8, 8, 2, 3]
    monkeypatch.setattr(posttraining, "roll_out", lambda *args, **kwargs: written(
        TINY, [PAINT] * len(chosen), [ANSWERS[i] for i in chosen]))
    for method in ("grpo", "rejection", "dpo"):
        practice = Practice(model, TINY, [task], replace(METHODS[method], group=2), prompts=3)
        rewards[:] = [0.5, 0.5, 1.0, 0.0, 0.2, 0.2]
        ids, places, counts, reference = practice.batch(rng())
        kept = [2] if method == "rejection" else [2, 3]
        assert torch.equal(ids, written(TINY, [PAINT] * 6, [ANSWERS[i] for i in chosen]).ids[kept])
        assert ids.shape == places.shape == counts.shape == reference.shape
        assert practice.last["contrast"] == pytest.approx(1 / 3) and practice.last["reward"] == pytest.approx(2.4 / 6)


# ---------------------------------------------------------------- log-probabilities of what was sampled

def naive(model, vocabulary, question, answer, temperature):
    """Token by token, as `generate` chooses: (log-probabilities, entropies) of an answer and its closing token."""
    ids, want = [*vocabulary.pack(question.prompt), OPEN[answer.modality]], answer.modality
    log_probs, entropies = [], []
    for j, token in enumerate([*vocabulary.shift(answer), CLOSE[want]]):
        logits = model(torch.tensor([ids]))[0, -1].double()
        mask = modality_mask(vocabulary, want, j, content_limit(vocabulary, want))
        probabilities = torch.where(mask, (logits / temperature - logits.max() / temperature).exp(), 0.0)
        probabilities = probabilities / probabilities.sum()
        log_probs.append(probabilities[token].log().item())
        entropies.append(torch.distributions.Categorical(probs=probabilities[mask]).entropy().item())
        ids.append(token)
    return log_probs, entropies


def questions_of(want):
    """Prompts of several lengths and kinds."""
    return [Question(prompt, want) for prompt in (
        (Segment("text", (3,)),), (Segment("text", (1, 2, 8, 0)), Segment("image", (0, 1, 2, 3, 5))), (Segment("audio", (1, 3)),))]


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("want", ["text", "image", "audio"])
def test_log_probs_and_entropies_are_those_of_the_loop_that_samples(want, temperature):
    model, asked = wild_model(context=160, scale=6.0), questions_of(want)
    rollouts = roll_out(model, SMALL, asked, 2, temperature=temperature, seed=5)
    with torch.no_grad():
        got, opened = sampled_log_probs(model, rollouts.ids, rollouts.places, allowed_ids(SMALL), temperature)
        lengths = {len(a.ids) for a in rollouts.answers}
        assert want == "image" or len(lengths) > 1, "rows of several lengths: some are padded"
        for i, (question, answer) in enumerate(zip(rollouts.questions, rollouts.answers)):
            log_probs, entropies = naive(model, SMALL, question, answer, temperature)
            start = len(SMALL.pack(question.prompt)) + 1
            for values, expected in ((got[i], log_probs), (opened[i], entropies)):
                end = start + len(expected)
                torch.testing.assert_close(values[start:end], torch.tensor(expected), rtol=1e-3, atol=1e-4)
                assert values[:start].abs().sum() == 0 and values[end:].abs().sum() == 0
            alone = written(SMALL, [question], [answer])                # without padding: the same
            values, _ = sampled_log_probs(model, alone.ids, alone.places, allowed_ids(SMALL), temperature)
            torch.testing.assert_close(values[0], got[i, :values.shape[1]], rtol=1e-3, atol=1e-4)


def test_without_the_mask_or_the_temperature_it_would_be_another_policy():
    """The control: what is left out shows."""
    model, asked = wild_model(context=160, scale=6.0), questions_of("image")
    rollouts = roll_out(model, SMALL, asked, 2, temperature=0.6)
    with torch.no_grad():
        right, _ = sampled_log_probs(model, rollouts.ids, rollouts.places, allowed_ids(SMALL), 0.6)
        warm, _ = sampled_log_probs(model, rollouts.ids, rollouts.places, allowed_ids(SMALL), 1.0)
        unmasked, _ = sampled_log_probs(model, rollouts.ids, rollouts.places, torch.ones_like(allowed_ids(SMALL)), 0.6)
    assert (right - warm).abs().max() > 0.1 and (right - unmasked).abs().max() > 0.1


@pytest.fixture
def short(monkeypatch):
    """Texts of up to two tokens and sounds of up to two frames: all answers can be written down."""
    for want, most in (("text", 2), ("audio", 4)):
        monkeypatch.setitem(generating.MAX_CONTENT, want, most)
    texts = [Segment("text", ids) for n in (1, 2) for ids in itertools.product(range(3), repeat=n)]
    sounds = [Segment("audio", ids) for n in (2, 4) for ids in itertools.product(range(2), repeat=n)]
    return {"text": texts, "image": ANSWERS, "audio": sounds}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("want", ["text", "image", "audio"])
def test_the_probabilities_of_all_possible_answers_add_up_to_1(short, want, temperature):
    model, answers = tiny_transformer().double(), short[want]
    rollouts = written(TINY, [Question(PROMPT, want)] * len(answers), answers)
    log_p, _ = sampled_log_probs(model, rollouts.ids, rollouts.places, allowed_ids(TINY), temperature)
    assert len(answers) == {"text": 12, "image": 9, "audio": 20}[want]
    assert log_p.sum(1).exp().sum().item() == pytest.approx(1, abs=1e-9) and (log_p <= 0).all()


@pytest.mark.parametrize("want", ["text", "image", "audio"])
def test_answers_come_as_often_as_their_probability_says(short, want):
    """Chi-square over all answers; at another temperature it fails, so it can."""
    model, answers, n, temperature = tiny_transformer(scale=6.0), short[want], 3000, 0.8
    question = Question(PROMPT, want)
    rollouts = roll_out(model, TINY, [question], n, temperature=temperature, seed=1)
    tally = np.array([rollouts.answers.count(answer) for answer in answers])
    assert tally.sum() == n
    listed = written(TINY, [question] * len(answers), answers)
    chances = {}
    for t in (temperature, 2.5):
        with torch.no_grad():
            log_p, _ = sampled_log_probs(model, listed.ids, listed.places, allowed_ids(TINY), t)
        expected = log_p.sum(1).exp().double().numpy()
        likely = expected * n >= 5                                      # the rare ones as one
        groups = [np.append(x[likely], x[~likely].sum() + 1e-9) for x in (tally, n * expected / expected.sum())]
        chances[t] = stats.chisquare(groups[0], groups[1] * groups[0].sum() / groups[1].sum()).pvalue
    assert chances[temperature] > 1e-3 and chances[2.5] < 1e-6


def test_answers_of_a_question_lie_next_to_each_other_whatever_is_wanted():
    """Questions of all modalities in one batch, each answered as `generate` answers it."""
    model = wild_model(context=160)
    asked = [question for trio in zip(*(questions_of(want) for want in ("text", "image", "audio"))) for question in trio]
    rollouts = roll_out(model, SMALL, asked, 3, seed=11)
    assert rollouts.questions == [question for question in asked for _ in range(3)]
    assert all(answer.modality == question.want for question, answer in zip(rollouts.questions, rollouts.answers))
    for number, want in enumerate(("text", "image", "audio")):
        rows = [i for i, question in enumerate(rollouts.questions) if question.want == want]
        again = generate(model, SMALL, [list(rollouts.questions[i].prompt) for i in rows], want, seed=11 + number)
        assert [rollouts.answers[i] for i in rows] == again
    for question, answer, ids in zip(rollouts.questions, rollouts.answers, rollouts.ids.tolist()):
        assert SMALL.unpack(ids) == [*question.prompt, answer]
    assert rollouts.ids.shape == rollouts.places.shape and len(rollouts.ids) == 27
    one = rollouts.keep([4, 2])
    assert one.answers == [rollouts.answers[4], rollouts.answers[2]] and torch.equal(one.ids, rollouts.ids[[4, 2]])


def test_each_place_has_the_mask_of_the_loop_that_samples():
    allowed, rollouts = allowed_ids(SMALL), roll_out(wild_model(context=160), SMALL, questions_of("audio"), 2)
    assert allowed.shape == (49 + 6 + 97, SMALL.size)
    for question, answer, places in zip(rollouts.questions, rollouts.answers, rollouts.places.tolist()):
        start = len(SMALL.pack(question.prompt)) + 1
        assert [p >= 0 for p in places] == [start <= t <= start + len(answer.ids) for t in range(len(places))]
        for j in range(len(answer.ids) + 1):
            assert torch.equal(allowed[places[start + j]], modality_mask(SMALL, "audio", j, 96))


# ---------------------------------------------------------------- what each answer counts

REWARDS = torch.tensor([[0.0, 1.0, 1.0, 0.5], [0.2, 0.2, 0.2, 0.2], [3.0, -1.0, 0.0, -1.0]])


def test_the_best_the_worst_and_any_one():
    best, any_, pair = best_alone(REWARDS, rng()), any_one(REWARDS, rng()), best_and_worst(REWARDS, rng())
    for counts, sums in ((best, [1, 0, 1]), (any_, [1, 0, 1]), (pair, [0, 0, 0])):
        assert counts.shape == REWARDS.shape and counts.sum(1).tolist() == sums
        assert (counts[1] == 0).all(), "a group without contrast counts nothing"
    assert best[0].argmax() in (1, 2) and best[2].tolist() == [1, 0, 0, 0]
    assert set(any_.unique().tolist()) == {0, 1} and set(pair.unique().tolist()) == {-1, 0, 1}
    assert pair[0].argmin() == 0 and pair[0].argmax() in (1, 2) and pair[2, 0] == 1 and pair[2].argmin() in (1, 3)
    assert has_contrast(REWARDS).tolist() == [True, False, True]
    assert has_contrast(torch.ones(2, 1)).tolist() == [False, False]


def test_equally_good_answers_draw_lots_and_a_random_one_is_any():
    dice, n = rng(1), 4000
    rewards = torch.tensor([[0.0, 1.0, 1.0, 1.0]]).expand(n, 4)
    ties = best_alone(rewards, dice).sum(0)
    assert ties[0] == 0 and stats.chisquare(ties[1:].numpy()).pvalue > 1e-3
    assert stats.chisquare(any_one(rewards, dice).sum(0).numpy()).pvalue > 1e-3, "the control picks without regard to the reward"
    worst = (best_and_worst(1 - rewards, dice) == -1).sum(0)
    assert worst[0] == 0 and stats.chisquare(worst[1:].numpy()).pvalue > 1e-3


def test_the_twin_of_rejection_sampling_uses_the_same_groups():
    rewards = torch.from_numpy(rng(3).integers(2, size=(300, 2))).float()
    chosen, twin = best_alone(rewards, rng()), any_one(rewards, rng())
    assert torch.equal(chosen.sum(1), twin.sum(1)) and torch.equal(chosen.sum(1) > 0, has_contrast(rewards))
    assert 0.3 < (chosen * twin).sum() / chosen.sum() < 0.7             # of two answers it hits the better one half of the time


def test_where_the_answers_of_a_group_differ():
    shown = [(0, 1), (0, 2), (0, 1), (2, 2), (2, 2), (2, 2)]
    rollouts = written(TINY, [PAINT] * 6, [Segment("image", ids) for ids in shown])
    start = len(TINY.pack(PROMPT)) + 1
    differ = where_they_differ(rollouts, 3)
    assert differ.dtype == torch.float and differ.shape == rollouts.ids.shape
    assert differ[:3].nonzero().tolist() == [[i, start + 1] for i in range(3)] and differ[3:].sum() == 0
    words = written(TINY, [Question(PROMPT, "text")] * 2, [Segment("text", ids) for ids in ((1,), (1, 2))])
    assert where_they_differ(words, 2)[:, start:].tolist() == [[0, 1, 1]] * 2, "one of them ends where the other goes on"


def test_differing_leaves_the_counts_of_the_other_tokens_away(monkeypatch):
    shown = [Segment("image", ids) for ids in ((0, 1), (0, 2))]
    monkeypatch.setattr(posttraining, "roll_out", lambda *args, **kwargs: written(TINY, [PAINT] * 2, shown))
    task = Task("toy", lambda rng, n: [PAINT] * n, lambda questions, answers: [1.0, 0.0])
    start = len(TINY.pack(PROMPT)) + 1
    for method, expected in (("grpo", [.5 / 6] * 3), ("grpo, differing", [0, .5 / 6, 0])):
        practice = Practice(tiny_transformer(), TINY, [task], replace(METHODS[method], group=2), prompts=1)
        _, _, counts, _ = practice.batch(rng())
        torch.testing.assert_close(counts[:, start:], torch.tensor([expected, [-x for x in expected]]))
        assert counts[:, :start].sum() == 0


# ---------------------------------------------------------------- losses

def batch_of(model, group=(1, 4, 3, 8), temperature=1.0):
    rollouts = written(TINY, [PAINT] * len(group), [ANSWERS[i] for i in group])
    with torch.no_grad():
        reference, _ = sampled_log_probs(model, rollouts.ids, rollouts.places, ALLOWED, temperature)
    return rollouts, reference


def masked_cross_entropy(model, rollouts, temperature=1.0):
    """torch's own, of each token that was chosen: (tokens,), answer after answer."""
    row, column = (rollouts.places >= 0).nonzero(as_tuple=True)
    logits = model(rollouts.ids[:, :-1])[row, column - 1] / temperature
    logits = logits.masked_fill(~ALLOWED[rollouts.places[row, column]], -math.inf)
    return F.cross_entropy(logits, rollouts.ids[row, column], reduction="none")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_with_counts_of_1_it_is_supervised_training(temperature):
    model = tiny_transformer().double()
    rollouts, reference = batch_of(model)
    answered = (rollouts.places >= 0).double()
    ours = policy_loss(model, rollouts.ids, rollouts.places, answered / answered.sum(), reference, allowed=ALLOWED,
                       temperature=temperature)
    expected = masked_cross_entropy(model, rollouts, temperature).mean()
    torch.testing.assert_close(ours["loss"], expected)
    torch.testing.assert_close(gradient(model, ours["loss"]), gradient(model, expected))
    assert set(ours) == {"loss", "entropy", "kl"} and not ours["kl"].requires_grad and not ours["entropy"].requires_grad


def test_practice_of_sft_is_supervised_training_on_the_given_answers():
    model = tiny_transformer().double()
    shown = [replace(PAINT, answer=ANSWERS[i]) for i in (2, 7, 7)]
    practice = Practice(model, TINY, [Task("given", lambda rng, n: shown, None)], "sft", prompts=3)
    ours = practice.loss(model, *practice.batch(rng()))["loss"]
    expected = masked_cross_entropy(model, written(TINY, shown, [q.answer for q in shown])).mean()
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(gradient(model, ours), gradient(model, expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", ["rejection", "random selection"])
def test_rejection_sampling_is_supervised_training_on_what_was_chosen(method, monkeypatch):
    model, group = tiny_transformer().double(), [1, 4, 3, 8]
    monkeypatch.setattr(posttraining, "roll_out", lambda *args, **kwargs: written(TINY, [PAINT] * 4, [ANSWERS[i] for i in group]))
    task = Task("toy", lambda rng, n: [PAINT] * n, lambda questions, answers: [0, 0, 1, 0.5])
    practice = Practice(model, TINY, [task], replace(METHODS[method], group=4), prompts=1)
    picked = set()
    for seed in range(12):
        ids, places, counts, reference = practice.batch(rng(seed))
        rollouts = written(TINY, [PAINT] * 4, [ANSWERS[i] for i in group])
        chosen, = [i for i in range(4) if torch.equal(rollouts.ids[i], ids[0])]
        picked.add(chosen)
        expected = masked_cross_entropy(model, rollouts.keep([chosen])).sum() / (4 * 3)
        ours = practice.loss(model, ids, places, counts, reference)["loss"]
        torch.testing.assert_close(gradient(model, ours), gradient(model, expected), rtol=1e-5, atol=1e-8)
    assert picked == ({2} if method == "rejection" else {0, 1, 2, 3})


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_the_preference_loss_is_dpo_as_it_is_written_elsewhere(beta):
    """As in TRL: log-ratios of policy and reference, chosen minus rejected."""
    model, before = tiny_transformer().double(), tiny_transformer(seed=1).double()
    rollouts, reference = batch_of(before)
    counts = torch.tensor([-0.3, 0.3, 0.1, -0.1])[:, None] * (rollouts.places >= 0)
    ours = preference_loss(model, rollouts.ids, rollouts.places, counts, reference, allowed=ALLOWED, beta=beta)["loss"]

    def chosen_and_rejected(m):
        log_p = -masked_cross_entropy(m, rollouts).view(4, 3).sum(1)                  # (4 answers x 3 tokens,) -> (4,)
        return log_p[[1, 2]], log_p[[0, 3]]
    policy_chosen, policy_rejected = chosen_and_rejected(model)
    with torch.no_grad():
        reference_chosen, reference_rejected = chosen_and_rejected(before)
    logits = (policy_chosen - policy_rejected) - (reference_chosen - reference_rejected)
    expected = -(beta * logits).sigmoid().log().mean()
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(gradient(model, ours), gradient(model, expected))
    chosen_up = gradient(model, policy_chosen.sum() - policy_rejected.sum())
    assert -gradient(model, ours) @ chosen_up > 0, "downhill is towards the better answers"


def test_dpo_starts_at_log_2_and_a_step_prefers_the_better_answers():
    model = tiny_transformer().double()
    rollouts, reference = batch_of(model)
    counts = torch.tensor([1.0, -1.0, -1.0, 1.0])[:, None] * (rollouts.places >= 0)
    settings = {"allowed": ALLOWED, "beta": 1.0}
    before = preference_loss(model, rollouts.ids, rollouts.places, counts, reference, **settings)
    assert before["loss"].item() == pytest.approx(math.log(2)) and before["kl"] == 0
    before["loss"].backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.01 * (torch.zeros_like(p) if p.grad is None else p.grad)
        after = preference_loss(model, rollouts.ids, rollouts.places, counts, reference, **settings)
        gained = (sampled_log_probs(model, rollouts.ids, rollouts.places, ALLOWED)[0] - reference).sum(1)
    assert after["loss"] < before["loss"] and gained[0] > gained[1] and gained[3] > gained[2]


@both
def test_the_kl_estimator_is_never_negative_zero_at_home_and_right_on_average(policy):
    """On an enumerable policy: the mean over all answers, with their probabilities, is the exact divergence."""
    model, home = POLICIES[policy](), POLICIES[policy]()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.4 * torch.randn(p.shape, dtype=torch.double)
    p, log_now, log_home = answers_of(model).detach().exp(), answers_of(model).detach(), answers_of(home).detach()
    exact = (p * (log_now - log_home)).sum()
    assert exact > 1e-3
    mean, slope = 0.0, 0.0
    for i in range(9):
        rollouts, reference = batch_of(home, (i,))
        zero = torch.zeros_like(reference)
        out = policy_loss(model, rollouts.ids, rollouts.places, zero, reference, allowed=ALLOWED, kl=1.0)
        assert out["kl"] >= 0
        torch.testing.assert_close(out["loss"].detach(), out["kl"])
        mean, slope = mean + p[i] * 3 * out["kl"], slope + p[i] * 3 * gradient(model, out["loss"])
        _, own = batch_of(model, (i,))
        stayed = policy_loss(model, rollouts.ids, rollouts.places, zero, own, allowed=ALLOWED, kl=1.0)
        assert stayed["kl"] == 0 and gradient(model, stayed["loss"]).abs().max() < 1e-9
    assert mean.item() == pytest.approx(exact.item(), rel=1e-9)
    if policy == "table":
        # The mean of its slope is that of the *other* divergence, of the reference from the model of now: it pulls home too.
        other = sum(F.kl_div(model.table[j].log_softmax(0), home.table[j].detach().softmax(0), reduction="sum") for j in (0, 1))
        torch.testing.assert_close(slope, gradient(model, other), rtol=1e-9, atol=1e-12)


def test_a_step_on_the_kl_alone_goes_home():
    model, home = tiny_transformer().double(), tiny_transformer(seed=1).double()
    rollouts, reference = batch_of(home, tuple(range(9)))

    def distance():
        return policy_loss(model, rollouts.ids, rollouts.places, torch.zeros_like(reference), reference, allowed=ALLOWED, kl=0.5)
    before = distance()
    torch.testing.assert_close(before["loss"], 0.5 * before["kl"])
    before["loss"].backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 1e-4 * (torch.zeros_like(p) if p.grad is None else p.grad)
    assert distance()["kl"] < before["kl"]


# ---------------------------------------------------------------- the loop

def first_is_1(questions, answers):
    """The toy reward: the first token of a picture has the id 1."""
    return [float(answer.ids[0] == 1) for answer in answers]


def ask(rng, n):
    return [PAINT] * n


def chance_of_reward(model):
    with torch.no_grad():
        return float(answers_of(model).exp()[3:6].sum())                # the answers (1, 0), (1, 1), (1, 2)


TOY, TOY_OPTIM = Task("toy", ask, first_is_1), Optim(lr=2e-2, warmup=2, weight_decay=0.0)


@pytest.mark.parametrize("method", ["sft", "grpo", "grpo, differing", "dpo", "rejection"])
def test_practice_raises_its_reward(method):
    model = tiny_transformer(scale=1.0)
    before = chance_of_reward(model)
    history = post_train(model, TINY, [TOY], method, steps=40, optim=TOY_OPTIM, run=QUIET)
    assert before < 0.4 and chance_of_reward(model) > 0.9 and not model.training
    assert len(history.rows) == 40 and {"loss", "reward", "contrast", "distinct", "entropy", "kl"} <= set(history.rows[0])
    if method != "sft":
        assert np.mean(history.column("reward")[-5:]) > np.mean(history.column("reward")[:5]) + 0.3


def test_without_a_reward_that_looks_the_reward_does_not_rise():
    """The controls, on the same model and dice as practice. What remains is drift, either way."""
    dice = rng(7)
    lots = Task("lots", ask, lambda questions, answers: dice.random(len(answers)).tolist())
    gained = {"grpo": [], "random selection": [], "random reward": []}
    for seed in range(2):
        for arm in gained:
            model = tiny_transformer(seed=seed, scale=1.0)
            before = chance_of_reward(model)
            post_train(model, TINY, [lots if arm == "random reward" else TOY], "grpo" if arm == "random reward" else arm, steps=20, prompts=4,
                       optim=replace(TOY_OPTIM, lr=1e-2), run=replace(QUIET, seed=seed))
            gained[arm].append(chance_of_reward(model) - before)
    print({arm: [round(x, 3) for x in values] for arm, values in gained.items()})
    assert min(gained["grpo"]) > 0.2
    assert max(abs(x) for arm in ("random selection", "random reward") for x in gained[arm]) < 0.1


def test_tasks_of_all_modalities_take_turns():
    model, asked = wild_model(context=160, scale=2.0), []

    def task(want):
        def ask(rng, n):
            asked.append(want)
            return questions_of(want)[:n]
        return Task(want, ask, lambda questions, answers: [float(answer.ids[0]) for answer in answers])
    before = copy.deepcopy(model.state_dict())
    post_train(model, SMALL, [task(want) for want in ("text", "image", "audio")], replace(METHODS["grpo"], group=2), steps=9,
               run=QUIET, prompts=2)
    assert set(asked) == {"text", "image", "audio"} and len(asked) == 9
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_reference_stays_as_the_model_was():
    model = tiny_transformer(scale=1.0)
    practice = Practice(model, TINY, [TOY], "grpo", prompts=2)
    with torch.no_grad():
        model.head.weight += 1
        model.head.weight[TINY.ranges["image"].start] += 3
    ids, places, _, reference = practice.batch(rng())
    expected, _ = sampled_log_probs(tiny_transformer(scale=1.0), ids, places, ALLOWED)
    torch.testing.assert_close(reference, expected.detach())
    assert not any(p.requires_grad for p in practice.reference.parameters())


def test_the_share_of_answers_that_differ():
    model = tiny_transformer(scale=1.0)
    practice = Practice(model, TINY, [TOY], "grpo", prompts=2)
    practice.batch(rng())
    assert 1 / 16 < practice.last["distinct"] <= 9 / 16, "one prompt, 16 answers of 9 possible ones"
    cold = Practice(tiny_transformer(), TINY, [TOY], "grpo", prompts=2, temperature=1e-4)
    cold.batch(rng())
    assert cold.last == {"reward": pytest.approx(cold.last["reward"]), "contrast": 0, "distinct": 1 / 16}, "nearly greedy"


# ---------------------------------------------------------------- what goes wrong

def broken(questions, answers):
    raise ZeroDivisionError("no ink")


def marking(*values):
    return lambda questions, answers: [*values, *[0.5] * (len(answers) - len(values))]


@pytest.mark.parametrize("reward, error, said", [
    (broken, RuntimeError, r"the reward of 'toy' failed \(ZeroDivisionError\('no ink'\)\); the model is as it was before this step"),
    (lambda questions, answers: None, RuntimeError, r"the reward of 'toy' failed \(TypeError\("),
    (marking(None), RuntimeError, r"the reward of 'toy' failed \(TypeError\("),
    (marking("good"), RuntimeError, r"the reward of 'toy' failed \(ValueError\("),
    (marking(0.0, math.nan), ValueError, "the reward of 'toy' is nan for answer 1: a reward is a finite number"),
    (marking(-math.inf), ValueError, "the reward of 'toy' is -inf for answer 0"),
    (lambda questions, answers: [1.0], ValueError, "gave 1 numbers for 16 answers"),
    (lambda questions, answers: [1.0] * 17, ValueError, "gave 17 numbers for 16 answers")])
def test_a_bad_reward_is_said_and_changes_nothing(reward, error, said):
    model = tiny_transformer(scale=1.0)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=said):
        post_train(model, TINY, [Task("toy", ask, reward)], "grpo", steps=2, run=QUIET, prompts=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and not model.training
    assert all(p.grad is None for p in model.parameters())


def test_a_reward_may_give_whatever_is_a_number():
    answers = [ANSWERS[0]] * 3
    for values in ([True, False, True], np.array([1.0, 0.0, 1.0], np.float32), torch.tensor([1, 0, 1]), (x for x in (1, 0, 1))):
        got = mark(Task("toy", ask, lambda questions, answers, values=values: values), [PAINT] * 3, answers)
        assert got.dtype == torch.float and got.tolist() == [1, 0, 1]


def test_an_interrupt_is_no_failed_reward():
    def stop(questions, answers):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        mark(Task("toy", ask, stop), [PAINT], ANSWERS[:1])


@pytest.mark.parametrize("settings, said", [
    ({"tasks": []}, "at least one task and one question in a batch, got 0 and 8"),
    ({"prompts": 0}, "at least one task and one question in a batch, got 1 and 0"),
    ({"temperature": 0}, "so the temperature is more than 0, got 0"),
    ({"temperature": math.nan}, "the temperature is more than 0"),
    ({"temperature": math.inf}, "the temperature is more than 0"),
    ({"method": Method(1, advantages)}, "a group of 1 has no others: take at least 2"),
    ({"method": Method(0, best_alone)}, "a group of 0 has no others"),
    ({"method": "ppo"}, "a method is one of sft, rejection, random selection, dpo, grpo, grpo, differing, got 'ppo'"),
    ({"tasks": [Task("silent", lambda rng, n: [], first_is_1)]}, "an empty batch teaches nothing"),
    ({"tasks": [Task("silent", lambda rng, n: [], first_is_1)], "method": "sft"}, "an empty batch teaches nothing"),
    ({"tasks": [Task("no answer", lambda rng, n: [replace(PAINT, answer=None)], None)], "method": "sft"},
     "question 0 wants image, and its answer is missing"),
    ({"tasks": [Task("a word", lambda rng, n: [PAINT, replace(PAINT, answer=PROMPT[0])], None)], "method": "sft"},
     "question 1 wants image, and its answer is text"),
    ({"tasks": [Task("long", lambda rng, n: [Question(PROMPT, "text", answer=Segment("text", (1,) * 49))], None)], "method": "sft"},
     "answer 0 has 49 tokens of text, and an answer has 1 to 48"),
    ({"tasks": [Task("empty", lambda rng, n: [Question(PROMPT, "audio", answer=Segment("audio", ()))], None)], "method": "sft"},
     "answer 0 has 0 tokens of audio, and an answer has 1 to 96"),
    ({"tasks": [Task("a film", lambda rng, n: [Question(PROMPT, "film")], first_is_1)]}, "want is one of"),
    ({"tasks": [Task("long", lambda rng, n: [Question((Segment("text", (1,) * 140),), "text")], first_is_1)]}, "shorten it by")])
def test_what_cannot_be_practised_is_refused(settings, said):
    model = tiny_transformer(scale=1.0)
    before = copy.deepcopy(model.state_dict())
    settings = {"tasks": [TOY], "method": "grpo", **settings}
    with pytest.raises(ValueError, match=said):
        post_train(model, TINY, steps=1, run=QUIET, **settings)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_empty_roll_out_is_refused():
    for questions, group in (([], 2), ([PAINT], 0)):
        with pytest.raises(ValueError, match="an empty batch teaches nothing"):
            roll_out(tiny_transformer(), TINY, questions, group)


@pytest.mark.parametrize("method", ["grpo", "dpo"])
def test_after_an_error_in_the_reward_the_run_goes_on_as_if_it_had_not_been(tmp_path, method):
    calls = []

    def fails_once(questions, answers):
        calls.append(1)
        if len(calls) == 4:
            raise OSError("the judge is away")
        return first_is_1(questions, answers)
    setup = {"method": method, "steps": 7, "optim": TOY_OPTIM, "prompts": 2, "kl" if method == "grpo" else "beta": 0.05}
    straight, stopped, resumed = (tiny_transformer(scale=1.0) for _ in range(3))
    whole = post_train(straight, TINY, [TOY], run=QUIET, **setup)
    run = replace(QUIET, resume=tmp_path / "run.pt", save_every=1)
    with pytest.raises(RuntimeError, match="the judge is away.*the model is as it was before this step"):
        post_train(stopped, TINY, [Task("toy", ask, fails_once)], run=run, **setup)
    after_three = tiny_transformer(scale=1.0)
    post_train(after_three, TINY, [TOY], run=replace(QUIET, until=3), **setup)
    assert all(torch.equal(value, stopped.state_dict()[name]) for name, value in after_three.state_dict().items())
    history = post_train(resumed, TINY, [Task("toy", ask, fails_once)], run=run, **setup)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in straight.state_dict().items())
    assert history.rows == whole.rows and len(history.rows) == 7
