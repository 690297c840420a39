"""Post-training, one stack for text, picture and sound: a model answers, a reward marks the answers, and what
each answer counts in the loss makes the method: supervised training, rejection sampling, DPO, GRPO.

Nothing here asks for a modality. An answer is a row of tokens, a reward is a number.
"""
import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse.dataset import pad
from mmcourse.generate import content_limit, generate, modality_mask
from mmcourse.optim import Optim
from mmcourse.training import History, Run, train
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import CLOSE, MODALITIES, OPEN, Segment, Vocabulary

POLICY_OPTIM = Optim(lr=3e-4, warmup=5, weight_decay=0.0)               # the model knows much already


# ---------------------------------------------------------------- questions and rewards

@dataclass(frozen=True)
class Question:
    """A prompt, the modality that is wanted, and the truth, for a reward to look at.
    `answer`: a right one, for supervised training."""
    prompt: tuple[Segment, ...]
    want: str
    truth: object = None
    answer: Segment | None = None


@dataclass(frozen=True)
class Task:
    """Something to practise. `ask(rng, n)` gives n questions; `reward(questions, answers)`
    gives a number for each answer, the larger the better."""
    name: str
    ask: Callable
    reward: Callable


def mark(task: Task, questions: Sequence[Question], answers: Sequence[Segment]):
    """The reward of each answer: (N,). If the reward fails or gives no number, so does
    this, before anything was learned from the answers."""
    try:
        rewards = [float(reward) for reward in task.reward(questions, answers)]
    except Exception as error:
        raise RuntimeError(f"the reward of {task.name!r} failed ({error!r}); the model is "
                           "as it was before this step") from error
    check_rewards(task, rewards, len(answers))
    return torch.tensor(rewards)


# ---------------------------------------------------------------- answers as rows of ids

@dataclass(frozen=True)
class Rollouts:
    """Answers as rows of ids (N, T), those to one question next to each other.

    Args:
        ids: prompt, opening token, answer, closing token, then 0.
        places: which row of `allowed_ids` a token was chosen from; -1: it was given.
    """
    questions: list[Question]
    answers: list[Segment]
    ids: torch.Tensor
    places: torch.Tensor

    def keep(self, rows: Sequence[int]) -> "Rollouts":
        """Some of the rows."""
        return Rollouts([self.questions[i] for i in rows], [self.answers[i] for i in rows],
                        self.ids[rows], self.places[rows])


def roll_out(model: Transformer, vocabulary: Vocabulary, questions: Sequence[Question],
             group: int, temperature: float = 1.0, seed: int = 0) -> Rollouts:
    """`group` sampled answers to each question."""
    check_roll_out(questions, group)
    asked = [question for question in questions for _ in range(group)]
    answers = [None] * len(asked)
    for number, want in enumerate(dict.fromkeys(question.want for question in asked)):
        rows = [i for i, question in enumerate(asked) if question.want == want]
        given = generate(model, vocabulary, [list(asked[i].prompt) for i in rows], want,
                         temperature=temperature, seed=seed + number)
        for i, answer in zip(rows, given):
            answers[i] = answer
    return written(vocabulary, asked, answers)


def written(vocabulary: Vocabulary, questions: Sequence[Question],
            answers: Sequence[Segment]) -> Rollouts:
    """Questions and answers as `Rollouts`, whoever gave the answers."""
    check_answers(vocabulary, questions, answers)
    first, rows = 0, {}                                     # of `allowed_ids`
    for want in MODALITIES:
        rows[want] = first
        first += content_limit(vocabulary, want) + 1
    ids, places = [], []
    for question, answer in zip(questions, answers, strict=True):
        prompt = [*vocabulary.pack(question.prompt), OPEN[answer.modality]]
        chosen = [*vocabulary.shift(answer), CLOSE[answer.modality]]
        ids.append(prompt + chosen)
        places.append([0] * len(prompt)
                      + [rows[answer.modality] + j + 1 for j in range(len(chosen))])
    return Rollouts(list(questions), list(answers), pad(ids), pad(places) - 1)


def allowed_ids(vocabulary: Vocabulary) -> torch.Tensor:
    """Which ids `generate` chooses from at each place of an answer in text, then of a
    picture, then of a sound: (places, vocab) bool."""
    limits = {want: content_limit(vocabulary, want) for want in MODALITIES}
    return torch.stack([modality_mask(vocabulary, want, j, limit)
                        for want, limit in limits.items() for j in range(limit + 1)])


def sampled_log_probs(model: Transformer, ids, places, allowed, temperature: float = 1.0):
    """How likely each token of the answers was when it was drawn: under the mask and the
    temperature of the sampling. And the entropy of each draw.

    ids, places (N, T) -> both (N, T) in nats, 0 for what was given.
    """
    row, column = (places >= 0).nonzero(as_tuple=True)
    logits = model.head(model.hidden(ids[:, :-1])[row, column - 1])     # (tokens, vocab)
    logits = (logits / temperature).masked_fill(~allowed[places[row, column]], -torch.inf)
    log_probs = logits.log_softmax(-1)
    chosen = log_probs.gather(1, ids[row, column][:, None])[:, 0]
    entropies = torch.special.entr(log_probs.detach().exp()).sum(-1)
    out = logits.new_zeros(ids.shape)
    return out.index_put((row, column), chosen), out.index_put((row, column), entropies)


# ---------------------------------------------------------------- what each answer counts

def advantages(rewards: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """How much better each answer is than its group's mean: (n, group) -> (n, group).

    The baseline of GRPO (Shao et al. 2024), without its division by the standard
    deviation, which makes nearly solved and nearly hopeless questions count most (Liu et
    al. 2025).
    """
    exact = rewards.double()  # float32 leaves 1e-8 of equal rewards: Adam makes steps of it
    return (exact - exact.mean(1, keepdim=True)).to(rewards.dtype)


def has_contrast(rewards: torch.Tensor) -> torch.Tensor:
    """Whether the rewards of a group differ at all: (n, group) -> (n,) bool."""
    return rewards.amax(1) > rewards.amin(1)


def best_alone(rewards: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """1 for the best answer of each group, 0 for the rest: rejection sampling. Equals draw
    lots; a group without contrast counts nothing."""
    lots = torch.from_numpy(rng.random(rewards.shape))
    ahead = torch.where(rewards == rewards.amax(1, keepdim=True), lots, -1.0)
    best = F.one_hot(ahead.argmax(1), rewards.shape[1])
    return best * has_contrast(rewards)[:, None].float()


def any_one(rewards: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """1 for a random answer of each group with contrast: the control of `best_alone`."""
    lots = torch.from_numpy(rng.random(rewards.shape))
    return best_alone(lots, rng) * has_contrast(rewards)[:, None]


def best_and_worst(rewards: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """1 for the best and -1 for the worst answer of each group: a pair for DPO."""
    return best_alone(rewards, rng) - best_alone(-rewards, rng)


def where_they_differ(rollouts: Rollouts, group: int) -> torch.Tensor:
    """1 where the answers of a group have different tokens, else 0: (N, T). What all have
    in common deserves neither praise nor blame (STAGE, 2509.25027)."""
    ids = rollouts.ids.view(-1, group, rollouts.ids.shape[1])           # (n, group, T)
    return (ids != ids[:, :1]).any(1).repeat_interleave(group, 0).float()


# ---------------------------------------------------------------- two losses

def policy_loss(model: Transformer, ids, places, counts, reference, *, allowed,
                temperature: float = 1.0, kl: float = 0.0) -> dict:
    """-sum(counts x log-probability), all (N, T): what counts more than nothing becomes
    likelier. Counts of 1: supervised training. Advantages: the policy gradient (REINFORCE,
    Williams 1992).

    `reference`: log-probabilities under the model of before. `kl`: what it costs to leave
    it (Schulman's estimate of the distance: never negative, and right on average).
    """
    log_probs, entropies = sampled_log_probs(model, ids, places, allowed, temperature)
    tokens = (places >= 0).sum()
    back = reference - log_probs                            # 0 for what was given
    distance = (back.exp() - 1 - back).sum() / tokens
    return {"loss": -(counts * log_probs).sum() + kl * distance,
            "entropy": entropies.sum() / tokens, "kl": distance.detach()}


def preference_loss(model: Transformer, ids, places, counts, reference, *, allowed,
                    temperature: float = 1.0, beta: float = 0.1) -> dict:
    """DPO (Rafailov et al. 2023): of the two answers of a pair, rows next to each other,
    the better one (counts > 0) shall gain more than the worse one (counts < 0)."""
    log_probs, entropies = sampled_log_probs(model, ids, places, allowed, temperature)
    gained = ((log_probs - reference) * counts.sign()).sum(1)           # (N,)
    margin = gained.view(-1, 2).sum(1)                                  # (N,) -> (pairs,)
    tokens, back = (places >= 0).sum(), (reference - log_probs).detach()
    return {"loss": -F.logsigmoid(beta * margin).mean(),
            "entropy": entropies.sum() / tokens,
            "kl": (back.exp() - 1 - back).sum() / tokens}


# ---------------------------------------------------------------- methods, and the loop

@dataclass(frozen=True)
class Method:
    """What makes a method: how many answers to a question, what each counts, which loss.

    `count`: rewards (n, group), rng -> counts (n, group). `differing`: only tokens in
    which the answers of a group differ count.
    """
    group: int
    count: Callable
    loss: Callable = policy_loss
    differing: bool = False


METHODS = {
    "sft": Method(1, lambda rewards, rng: torch.ones_like(rewards)),    # right ones, given
    "rejection": Method(8, best_alone),
    "random selection": Method(8, any_one),
    "dpo": Method(8, best_and_worst, preference_loss),
    "grpo": Method(8, advantages),
    "grpo, differing": Method(8, advantages, differing=True),
}


class Practice:
    """Batches and loss for `train`: questions of a random task, answered by the model of
    now, marked, and counted by the method.

    Args:
        prompts: questions in a batch.
        temperature: of the answers.
        settings: of the method's loss: `kl`, `beta`.

    Attributes:
        reference: the model as it was when the practice began.
        last: of the last batch the mean reward, the share of groups with contrast, and of
            answers that differ.
    """

    def __init__(self, model: Transformer, vocabulary: Vocabulary, tasks: Sequence[Task],
                 method: str | Method, *, prompts: int = 8, temperature: float = 1.0,
                 **settings):
        check_method(method)
        self.method = METHODS[method] if isinstance(method, str) else method
        check_practice(tasks, self.method, prompts, temperature)
        self.model, self.vocabulary, self.tasks = model, vocabulary, tasks
        self.reference = copy.deepcopy(model).requires_grad_(False)
        self.prompts, self.temperature, self.settings = prompts, temperature, settings
        self.allowed = allowed_ids(vocabulary).to(model.device)
        self.last = {}

    def answered(self, rng: np.random.Generator) -> tuple[Rollouts, torch.Tensor]:
        """Questions with answers, and their rewards (n, group): those of the model, or, in
        groups of one, the right ones."""
        task = self.tasks[int(rng.integers(len(self.tasks)))]
        questions = task.ask(rng, self.prompts)
        if self.method.group == 1:
            given = [question.answer for question in questions]
            return written(self.vocabulary, questions, given), torch.ones(len(given), 1)
        rollouts = roll_out(self.model, self.vocabulary, questions, self.method.group,
                            self.temperature, seed=int(rng.integers(2**31)))
        rewards = mark(task, rollouts.questions, rollouts.answers)
        return rollouts, rewards.view(-1, self.method.group)            # (N,) -> (n, group)

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """ids, places, counts and the reference's log-probabilities: (N, T) each. Answers
        that count nothing are left out."""
        rollouts, rewards = self.answered(rng)
        counts = self.method.count(rewards, rng).float().flatten()      # (n, group) -> (N,)
        tokens = (rollouts.places >= 0).float()
        counts = counts[:, None] * tokens / tokens.sum()
        if self.method.differing:
            counts = counts * where_they_differ(rollouts, self.method.group)
        different = {(q.prompt, a) for q, a in zip(rollouts.questions, rollouts.answers)}
        self.last = {"reward": rewards.mean().item(),
                     "contrast": has_contrast(rewards).float().mean().item(),
                     "distinct": len(different) / len(rollouts.answers)}
        kept = (counts != 0).any(1).nonzero().flatten().tolist() or [0, 1]
        rollouts = rollouts.keep(kept)
        ids, places = (x.to(self.model.device) for x in (rollouts.ids, rollouts.places))
        with torch.no_grad():
            reference, _ = sampled_log_probs(self.reference, ids, places, self.allowed,
                                             self.temperature)
        return ids, places, counts[kept], reference

    def loss(self, model: Transformer, *batch: torch.Tensor) -> dict:
        """The method's loss of a batch, and what else is logged."""
        return {**self.method.loss(model, *batch, allowed=self.allowed,
                                   temperature=self.temperature, **self.settings),
                **self.last}


def post_train(model: Transformer, vocabulary: Vocabulary, tasks: Sequence[Task],
               method: str | Method, *, steps: int, optim: Optim = POLICY_OPTIM,
               run: Run = Run(), after_step: Callable | None = None, **practice) -> History:
    """Practise tasks by a method; the model is changed in place. `practice`: as `Practice`.

    To go on with a run that was stopped (`Run.resume`), begin with the model of before it:
    that is the reference.
    """
    practised = Practice(model, vocabulary, tasks, method, **practice)
    return train(model, practised.batch, practised.loss, steps=steps, optim=optim, run=run,
                 after_step=after_step)


# ---------------------------------------------------------------- checks

def check_rewards(task: Task, rewards: list[float], n: int) -> None:
    """ValueError if these are not `n` finite numbers."""
    if len(rewards) != n:
        raise ValueError(f"the reward of {task.name!r} gave {len(rewards)} numbers for {n} answers")
    for i, reward in enumerate(rewards):
        if not math.isfinite(reward) or abs(reward) > 1e30:            # float32 has no more
            raise ValueError(f"the reward of {task.name!r} is {reward} for answer {i}: a reward is a finite number, "
                             "0 for what cannot be marked. The model is as it was before this step")


def check_roll_out(questions: Sequence[Question], group: int) -> None:
    """ValueError without questions or without answers to them."""
    if not len(questions) or group < 1:
        raise ValueError(f"at least one question and one answer to each, got {len(questions)} and {group}: an empty "
                         "batch teaches nothing")


def check_answers(vocabulary: Vocabulary, questions: Sequence[Question], answers: Sequence[Segment | None]) -> None:
    """ValueError without questions, and for an answer that `generate` could not have given: its log-probability would be
    that of other places, or minus infinity."""
    if not len(questions):
        raise ValueError("there are no questions: an empty batch teaches nothing")
    for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        if answer is None or answer.modality != question.want:
            raise ValueError(f"question {i} wants {question.want}, and its answer is "
                             + ("missing" if answer is None else answer.modality))
        limit = content_limit(vocabulary, question.want)
        if not 1 <= len(answer.ids) <= limit:
            raise ValueError(f"answer {i} has {len(answer.ids)} tokens of {question.want}, and an answer has 1 to {limit}")


def check_method(method: str | Method) -> None:
    """ValueError for the name of no method."""
    if isinstance(method, str) and method not in METHODS:
        raise ValueError(f"a method is one of {', '.join(METHODS)}, got {method!r}")


def check_practice(tasks: Sequence[Task], method: Method, prompts: int, temperature: float) -> None:
    """ValueError for a practice in which nothing could be learned."""
    if not tasks or prompts < 1:
        raise ValueError(f"at least one task and one question in a batch, got {len(tasks)} and {prompts}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"answers are sampled, so the temperature is more than 0, got {temperature}")
    if method.group < 2 and method.count is not METHODS["sft"].count:
        raise ValueError(f"an answer is compared with others to the same question, and a group of {method.group} has "
                         "no others: take at least 2, better 8")
