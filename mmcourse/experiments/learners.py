"""Nets that learn from examples (chapter 10): how each task is asked of an `EpisodeNet`, learned and marked.

A `Task` is a net, its batches and its loss. What marks an answer gives a bool for each episode, (R,).
"""
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.checks import device_of
from mmcourse.experiments.episodes import LABELS, RULES, Labelled, Ruled, binding, bursty, forced, rules
from mmcourse.experiments.thing_tokens import NOTHING, ThingTokens
from mmcourse.experiments.voices import (
    FRAMES,
    NUMBERS,
    WORD_IDS,
    Spoken,
    SpokenWords,
    new_words,
    sound_loss,
    spoken,
)
from mmcourse.in_context import EpisodeNet
from mmcourse.optim import Optim
from mmcourse.training import History, Run, train
from mmcourse.world.glyphs import AT, GROUNDS, LETTER

OPTIM = Optim("muon", lr=3e-3, muon_lr=0.02)
BATCH = 64
MOST = 8                                # examples and query of a training episode, at most

# The words of a net: labels, then grounds, places and letters by name, then what the two rules are asked by.
GROUND_WORDS = LABELS
PLACE_WORDS = GROUND_WORDS + len(GROUNDS)
LETTER_WORDS = PLACE_WORDS + len(AT)
NO_RULE, FIRST, SECOND = range(LETTER_WORDS + len(LETTER), LETTER_WORDS + len(LETTER) + 3)
WORDS = SECOND + 1


@dataclass(frozen=True)
class Task:
    """What a net learns: `make()` gives it, `batch(rng)` the tensors of 64 episodes, `loss(net, *tensors)` a number."""
    make: Callable[[], EpisodeNet]
    batch: Callable[[np.random.Generator], tuple]
    loss: Callable[..., torch.Tensor]
    steps: int


def learn(task: Task, seed: int = 0, after_step: Callable | None = None, progress: bool = False,
          **run) -> tuple[EpisodeNet, History]:
    """Train a fresh net on a task."""
    torch.manual_seed(seed)
    net = task.make()
    history = train(net, task.batch, task.loss, steps=task.steps, optim=OPTIM, after_step=after_step,
                    run=Run(seed=seed, progress=progress, **run))
    return net, history


def ask(net: EpisodeNet, *parts) -> list[torch.Tensor]:
    """The answers of a net, wherever it is, to parts on the CPU; they come back there."""
    device = device_of(net)
    return [answer.cpu() for answer in net(*([(kind, x.to(device)) for kind, x in part] for part in parts))]


def some(rng: np.random.Generator, least: int = 2) -> int:
    """How many examples a training episode has: any number, so that none is special."""
    return int(rng.integers(least, MOST))


class Learners(nn.Module):
    """Nets by name, `learners["forced"]`, one file for all: what is shipped. Args: the config of each net."""

    def __init__(self, **configs: dict):
        super().__init__()
        self.nets = nn.ModuleDict({name: EpisodeNet(**config) for name, config in configs.items()})
        self.config = {name: net.config for name, net in self.nets.items()}

    @classmethod
    def of(cls, nets: dict[str, EpisodeNet]) -> "Learners":
        """Copies of trained nets."""
        made = cls(**{name: net.config for name, net in nets.items()})
        for name, net in nets.items():
            made[name].load_state_dict(net.state_dict())
        return made

    def __getitem__(self, name: str) -> EpisodeNet:
        if name not in self.nets:
            raise KeyError(f"there is no net {name!r} here: take one of {', '.join(self.nets)}")
        return self.nets[name]


# ---------------------------------------------------------------- what is this called?

def glyphs(tables: ThingTokens, things: torch.Tensor) -> torch.Tensor:
    """Things close up, on white: (...) -> their four tokens (..., 4)."""
    return torch.from_numpy(tables.table[things.numpy(), 0, 0])


def label_loss(net: EpisodeNet, pictures, labels, known):
    """Cross-entropy of the labels (R, P) of pictures, at the pairs that count."""
    answers, = net((("chunk", pictures), ("words", labels[..., None])))
    return F.cross_entropy(answers[known], labels[known])


def forced_task(tables: ThingTokens, steps: int = 800, width: int = 128, layers: int = 2) -> Task:
    """Labels drawn anew in each episode; what counts are those that an earlier example tells."""
    def batch(rng):
        episode = forced(tables, rng, BATCH, pairs=some(rng))
        return glyphs(tables, episode.things), episode.labels, episode.seen
    return Task(lambda: EpisodeNet(LABELS, (4, 512), width=width, layers=layers), batch, label_loss, steps)


def bursty_task(tables: ThingTokens, share: float, classes: int | None, steps: int = 400) -> Task:
    """A share of bursty episodes, a number of classes with fixed labels; all labels count. (All episodes have eight
    examples, so the tags may be in order: the net begins to look sooner.)"""
    def batch(rng):
        episode = bursty(tables, rng, BATCH, share, classes)
        return glyphs(tables, episode.things), episode.labels, torch.ones_like(episode.seen)
    return Task(lambda: EpisodeNet(LABELS, (4, 512), in_order=True), batch, label_loss, steps)


@torch.no_grad()
def called(net: EpisodeNet, tables: ThingTokens, episode: Labelled) -> torch.Tensor:
    """What a net calls the thing of the query: labels (R,)."""
    answers, = ask(net, (("chunk", glyphs(tables, episode.things)), ("words", episode.labels[..., None])))
    return answers[:, -1].argmax(-1)


# ---------------------------------------------------------------- a word, a ground -> a picture

def named_on(episode: Labelled) -> torch.Tensor:
    """The left halves of bindings, "dax, red": words (R, P, 2)."""
    return torch.stack([episode.labels, GROUND_WORDS + episode.grounds], -1)


def drawing_loss(net: EpisodeNet, words, pictures, known, echo: float = 1.0):
    """Cross-entropy of the tokens of pictures (R, P, 16), at the pairs that count, and of the echoes."""
    (answers,), (echoes,) = net.with_echo((("words", words), ("chunk", pictures)))
    return (F.cross_entropy(answers[known].flatten(0, 1), pictures[known].flatten())
            + echo * F.cross_entropy(echoes.flatten(0, 2), pictures.flatten()))


def binding_task(tables: ThingTokens, steps: int = 1500, echo: float = 1.0) -> Task:
    """Two words bound to things anew in each episode; what counts are pictures whose word an earlier example has.

    (One head and loud words: with two heads, or words no louder than tags, more trainings never find the word.)
    """
    def batch(rng):
        episode = binding(tables, rng, BATCH, pairs=some(rng))
        return named_on(episode), episode.pictures, episode.seen
    return Task(lambda: EpisodeNet(WORDS, heads=1, loud=2.0), batch, partial(drawing_loss, echo=echo), steps)


@torch.no_grad()
def drawn(net: EpisodeNet, episode: Labelled) -> torch.Tensor:
    """What a net draws for the query: tokens (R, 16)."""
    answers, = ask(net, (("words", named_on(episode)), ("chunk", episode.pictures)))
    return answers[:, -1].argmax(-1)


@torch.no_grad()
def log_probability(net: EpisodeNet, episode: Labelled, label: torch.Tensor) -> torch.Tensor:
    """How likely the query's picture would be if it were called `label` (R,): log p, summed over its tokens, (R,)."""
    words = named_on(episode)
    words[:, -1, 0] = label
    answers, = ask(net, (("words", words), ("chunk", episode.pictures)))
    each = answers[:, -1].log_softmax(-1).gather(-1, episode.pictures[:, -1, :, None])       # (R, 16, 1)
    return each.sum((1, 2))


def others_label(episode: Labelled) -> torch.Tensor:
    """In episodes of two classes, the label that is not the query's: (R,)."""
    other = (episode.labels != episode.labels[:, -1:]).int().argmax(1)
    return episode.labels.gather(1, other[:, None])[:, 0]


def told_backwards(net: EpisodeNet, episode: Labelled) -> torch.Tensor:
    """"[picture] is a ...?" asked of a net that draws: whether the right one of two words makes the picture likelier."""
    return log_probability(net, episode, episode.labels[:, -1]) > log_probability(net, episode, others_label(episode))


# ---------------------------------------------------------------- a picture before, a picture after

def rule_loss(net: EpisodeNet, before, after):
    """Cross-entropy of the tokens of pictures after a rule, from the second pair on, and of the echoes."""
    (answers,), (echoes,) = net.with_echo((("chunk", before), ("chunk", after)))
    return (F.cross_entropy(answers[:, 1:].flatten(0, 2), after[:, 1:].flatten())
            + F.cross_entropy(echoes.flatten(0, 2), after.flatten()))


def rule_task(tables: ThingTokens, which, steps: int = 2000, layers: int = 3, **options) -> Task:
    """Rules shown by one to seven pairs. `options`: `values` and `wallpapers` of `rules`."""
    def batch(rng):
        episode = rules(tables, rng, BATCH, which, pairs=some(rng, 1), **options)
        return episode.before, episode.after
    return Task(lambda: EpisodeNet(WORDS, layers=layers), batch, rule_loss, steps)


@torch.no_grad()
def applied(net: EpisodeNet, episode: Ruled) -> torch.Tensor:
    """What a net makes of the query: tokens (R, 16)."""
    answers, = ask(net, (("chunk", episode.before), ("chunk", episode.after)))
    return answers[:, -1].argmax(-1)


# ---------------------------------------------------------------- the rule is said first

FIRST_WORDS = {"recolour": GROUND_WORDS, "move": PLACE_WORDS, "double": PLACE_WORDS, "letter": LETTER_WORDS}


def rule_words(tables: ThingTokens, values: torch.Tensor) -> torch.Tensor:
    """The values (R, 6) of one rule or two as words (R, 2): "red", "letter K"; the second may be `NO_RULE`.

    The word says the rule too, as long as only one of the rules that are learned together has places as values.
    """
    words = torch.full((len(values), 2), NO_RULE)
    n = torch.zeros(len(values), dtype=torch.long)
    for rule, first in FIRST_WORDS.items():
        value = values[:, RULES.index(rule)] - (tables.of["letter"].start if rule == "letter" else 0)
        rows = torch.where(values[:, RULES.index(rule)] != NOTHING)[0]
        words[rows, n[rows]] = first + value[rows]
        n[rows] += 1
    return words


def saying_parts(before, after, words) -> tuple:
    """Examples, then the rule in two words, then the query: three parts of one episode."""
    asked = torch.tensor([FIRST, SECOND], device=words.device).expand(len(words), 2)
    return ((("chunk", before[:, :-1]), ("chunk", after[:, :-1])),
            (("words", asked[..., None]), ("words", words[..., None])),
            (("chunk", before[:, -1:]), ("chunk", after[:, -1:])))


def saying_loss(net: EpisodeNet, before, after, words):
    """`rule_loss`, and the cross-entropy of the rule's words."""
    (shown, said, asked), (echoes, *_) = net.with_echo(*saying_parts(before, after, words))
    pictures = torch.cat([shown[:, 1:], asked], 1)
    return (F.cross_entropy(pictures.flatten(0, 2), after[:, 1:].flatten())
            + F.cross_entropy(echoes.flatten(0, 2), after[:, :-1].flatten())
            + 0.3 * F.cross_entropy(said.flatten(0, 1), words.flatten()))


def saying_task(tables: ThingTokens, which, steps: int = 3000, layers: int = 3) -> Task:
    """`rule_task`, but before the query the rule is said in words."""
    def batch(rng):
        episode = rules(tables, rng, BATCH, which, pairs=some(rng, 1))
        return episode.before, episode.after, rule_words(tables, episode.values)
    return Task(lambda: EpisodeNet(WORDS, layers=layers), batch, saying_loss, steps)


@torch.no_grad()
def said_and_applied(net: EpisodeNet, episode: Ruled, words: torch.Tensor | None = None) -> tuple:
    """What a net says the rule is, (R, 2), and what it then makes of the query, (R, 16). `words`: it is told instead."""
    said = torch.full((len(episode.before), 2), NO_RULE) if words is None else words
    for i in range(2 if words is None else 0):                          # the second word knows the first
        said[:, i] = ask(net, *saying_parts(episode.before, episode.after, said))[1][:, i].argmax(-1)
    return said, ask(net, *saying_parts(episode.before, episode.after, said))[2][:, -1].argmax(-1)


# ---------------------------------------------------------------- a word in a voice

def sounds_loss(net: EpisodeNet, words, sounds, known):
    """`sound_loss` of the sounds (R, P, 16, 65) of words (R, P), at the pairs that count."""
    answers, = net((("words", words[..., None]), ("chunk", sounds)))
    return sound_loss(answers[known], sounds[known])


def voice_task(tables: SpokenWords, steps: int = 1200) -> Task:
    """In turn: words said in one voice, and invented words bound to sounds. (Of the first all pairs count, so that the
    net learns to say the words.)"""
    def batch(rng):
        if rng.random() < 0.5:
            episode = spoken(tables, rng, BATCH, some(rng, 0))
            return episode.words, episode.sounds, torch.ones_like(episode.seen)
        episode = new_words(tables, rng, BATCH, pairs=some(rng))
        return episode.words, episode.sounds, episode.seen
    words = WORD_IDS + len(tables.names)
    return Task(lambda: EpisodeNet(words, (FRAMES, NUMBERS), sound=True), batch, sounds_loss, steps)


@torch.no_grad()
def sounded(net: EpisodeNet, episode: Spoken) -> torch.Tensor:
    """How a net says the query: (R, 16, 65)."""
    answers, = ask(net, (("words", episode.words[..., None]), ("chunk", episode.sounds)))
    return answers[:, -1]


# ---------------------------------------------------------------- learning the examples by gradient instead

def fine_tuning(net: EpisodeNet, loss: Callable, examples: tuple, rate: float) -> Iterator[EpisodeNet]:
    """A copy of a net, as it is and then after each step of training on the examples of one episode. Each example is
    an episode of one pair: nothing is learned from context."""
    tuned = copy.deepcopy(net)
    optimizer = torch.optim.Adam(tuned.parameters(), rate)
    while True:
        yield tuned
        optimizer.zero_grad()
        loss(tuned, *examples).backward()
        optimizer.step()
