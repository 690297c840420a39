"""What chapter 10 measures of nets that learn from examples: counts of right answers, of so many episodes."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.experiments.episodes import HELD_OUT_TWO, Labelled, Ruled, binding, forced, in_weights, rules
from mmcourse.experiments.heads import attention_maps, prefix_matching, without
from mmcourse.experiments.learners import (
    Task,
    applied,
    called,
    drawn,
    fine_tuning,
    glyphs,
    label_loss,
    learn,
    named_on,
    rule_words,
    said_and_applied,
    sounded,
    told_backwards,
)
from mmcourse.experiments.thing_tokens import CENTRE, ThingTokens
from mmcourse.experiments.voices import (
    Spoken,
    SpokenWords,
    nearest_voice,
    nearest_word,
    new_words,
    pitch_error,
    spoken,
    to_sound,
)
from mmcourse.in_context import EpisodeNet
from mmcourse.recipes import finished
from mmcourse.training import History

LOOKS = (0.0625, 0.125, 0.1875, 0.25, 0.3125, 0.375, 0.5, 0.625, 0.75, 1.0)     # shares of a training at which it is asked
EXAMPLES = (1, 2, 3, 4, 5, 6, 7)        # of each class, or of a rule; training has at most seven in all
RULE_EXAMPLES = (*EXAMPLES, 10, 15)     # the net has room for 15
RATES = (1e-3, 3e-3, 1e-2)              # of fine-tuning
TUNED = (1, 2, 4, 8, 16, 32, 64)        # steps of fine-tuning


@dataclass(frozen=True)
class Size:
    """Of the tables, and of what is asked."""
    train: int = 4096
    held_out: int = 512
    test: int = 512                     # episodes of a test
    looks: int = 256                    # episodes of a look along training, of validation
    tuned: int = 100                    # episodes whose examples a net is fine-tuned on
    voices: tuple[int, int, int] = (240, 32, 64)        # of training, validation and test
    words: tuple[int, int, int] = (44, 9, 10)


@cache
def tables(size: Size) -> ThingTokens:
    """The things as tokens."""
    return ThingTokens(checkpoints.load("glyph_vqvae"), size.train, size.held_out)


def dice(*key: int) -> np.random.Generator:
    """The same questions for every net."""
    return np.random.default_rng((10, *key))


def count(right: torch.Tensor) -> int:
    """How many are."""
    return int(right.sum())


def looked_at(task: Task, seed: int, look: Callable[[EpisodeNet], dict]) -> tuple[EpisodeNet, History, list[dict]]:
    """Train a net and `look` at it along the way: the net, the history, and a dict for each look."""
    marks, along = {max(round(share * task.steps), 1) for share in LOOKS}, []

    def after_step(net, step):
        if step + 1 in marks:
            net.eval()
            along.append({"step": step + 1, **look(net)})
            net.train()
    net, history = learn(task, seed, after_step)
    return net, finished(history), along


# ---------------------------------------------------------------- forced labels

def right_labels(net: EpisodeNet, size: Size, key: int, n: int, **options) -> tuple[Labelled, torch.Tensor, torch.Tensor]:
    """Episodes of forced labels, what a net answers, and whether that is right."""
    episode = forced(tables(size), dice(key), n, **options)
    answer = called(net, tables(size), episode)
    return episode, answer, answer == episode.labels[:, -1]


def forced_look(net: EpisodeNet, size: Size) -> dict:
    """Right at one example a class on validation, and the prefix-matching score of each head."""
    episode, _, right = right_labels(net, size, 1, size.looks, k=1, split="validation")
    parts = (("chunk", glyphs(tables(size), episode.things)), ("words", episode.labels[..., None]))
    scores = prefix_matching(attention_maps(net, parts), episode.labels)
    return {"k1": count(right), "heads": [[round(float(score), 3) for score in layer] for layer in scores]}


def forced_test(net: EpisodeNet, size: Size) -> dict:
    """The test of forced labels: by examples a class (those up to 3 fit training), with four classes, shuffled; how
    often the answer is the last example's; and what is left without each head."""
    n, test = size.test, {"split": "test"}
    by_k = {f"k{k}": right_labels(net, size, 2, n, k=k, **test) for k in EXAMPLES}
    row = {name: count(right) for name, (*_, right) in by_k.items()}
    for k in (1, 3):
        episode, answer, _ = by_k[f"k{k}"]
        row[f"last_k{k}"] = count(answer == episode.labels[:, -2])
        row[f"shuffled_k{k}"] = count(right_labels(net, size, 2, n, k=k, shuffled=True, **test)[2])
    row["four_k1"] = count(right_labels(net, size, 3, n, classes=4, k=1, **test)[2])
    row["four_k3"] = count(right_labels(net, size, 3, n, classes=4, k=3, **test)[2])
    row["cut"] = []
    for layer, block in enumerate(net.blocks):
        left = []
        for head in range(block.attention.heads):
            with without(net, [(layer, head)]):
                left.append(count(right_labels(net, size, 2, n, k=1, **test)[2]))
        row["cut"].append(left)
    last = len(net.blocks) - 1
    with without(net, [(last, head) for head in range(net.blocks[last].attention.heads)]):
        row["cut_last_layer"] = count(right_labels(net, size, 2, n, k=1, **test)[2])
    return row


def bursty_look(net: EpisodeNet, size: Size, classes: int | None, split: str, n: int) -> dict:
    """Answers that only the examples tell (new glyphs, labels drawn anew), and those only known by heart."""
    row = {"in_context": count(right_labels(net, size, 4, n, classes=2, k=4, split=split)[2])}
    if classes:
        episode = in_weights(tables(size), dice(5), n, classes)
        row["in_weights"] = count(called(net, tables(size), episode) == episode.labels[:, -1])
    return row


# ---------------------------------------------------------------- bindings

def exact(answer: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """Whether all tokens of the answer (R, 16) are those of the query's picture: (R,)."""
    return (answer == pictures[:, -1]).all(1)


def binding_look(net: EpisodeNet, size: Size) -> dict:
    """Drawn right and named right at one example a word, on validation."""
    episode = binding(tables(size), dice(6), size.looks, k=1, split="validation")
    return {"k1": count(exact(drawn(net, episode), episode.pictures)), "backwards": count(told_backwards(net, episode))}


def binding_test(net: EpisodeNet, size: Size) -> dict:
    """The test of bindings: drawn and named by examples a word; four words; without support, shuffled; whose thing is
    drawn where it is not the right one."""
    n, test = size.test, {"split": "test"}
    row: dict = {}
    for k in EXAMPLES:
        episode = binding(tables(size), dice(7), n, k=k, **test)
        row[f"k{k}"] = count(exact(drawn(net, episode), episode.pictures))
        row[f"backwards_k{k}"] = count(told_backwards(net, episode))
    for k in (1, 3):
        episode = binding(tables(size), dice(7), n, k=k, **test)
        row[f"last_k{k}"] = count(thing_of(drawn(net, episode), size, episode, episode.things[:, -2]))
        row[f"four_k{k}"] = count(exact(drawn(net, four := binding(tables(size), dice(8), n, words=4, k=k, **test)),
                                        four.pictures))
        for name, options in {"no_support": {"support": False}, "shuffled": {"shuffled": True}}.items():
            episode = binding(tables(size), dice(7), n, k=k, **options, **test)
            row[f"{name}_k{k}"] = count(exact(drawn(net, episode), episode.pictures))
    return row


def thing_of(answer: torch.Tensor, size: Size, episode: Labelled, things: torch.Tensor) -> torch.Tensor:
    """Whether what was drawn (R, 16) is these things (R,) on the query's ground: (R,)."""
    wanted = tables(size).compose(episode.grounds[:, -1].numpy(), things[:, None].numpy(), np.full((len(things), 1), CENTRE))
    return (answer == torch.from_numpy(wanted)).all(1)


# ---------------------------------------------------------------- rules

def rule_test(net: EpisodeNet, size: Size, rule: str, split: str, n: int, examples: Sequence[int] = RULE_EXAMPLES,
              key: int = 9, values: int | None = None) -> dict:
    """By examples: right on values that training had (the first `values` of them) and on held-out ones; shuffled;
    answers that repeat the last example's picture."""
    row: dict = {}
    for held in (False, True):
        name, few = ("held", None) if held else ("seen", values)
        for k in examples:
            episode = rules(tables(size), dice(key), n, rule, pairs=k, split=split, held=held, values=few)
            answer = applied(net, episode)
            row[f"{name}_k{k}"] = count(exact(answer, episode.after))
            if k == 4:
                row[f"{name}_last"] = count((answer == episode.after[:, -2]).all(1))
        episode = rules(tables(size), dice(key), n, rule, pairs=4, split=split, held=held, values=few, shuffled=True)
        row[f"{name}_shuffled"] = count(exact(applied(net, episode), episode.after))
    return row


def composing_test(net: EpisodeNet, size: Size, which, said: bool, n: int) -> dict:
    """One rule, two rules of training, and two that were never together: right at four examples; if the rule is said
    first also how often it is said right, and right if it is told."""
    row: dict = {}
    pairs = [one for one in which if not isinstance(one, str)]
    for name, some in {"one": [one for one in which if isinstance(one, str)], "two": pairs, "held_two": [HELD_OUT_TWO]}.items():
        episode: Ruled = rules(tables(size), dice(11), n, some, pairs=4, split="test")
        if not said:
            row[name] = count(exact(applied(net, episode), episode.after))
            continue
        words = rule_words(tables(size), episode.values)
        says, answer = said_and_applied(net, episode)
        row[name] = count(exact(answer, episode.after))
        row[f"{name}_said"] = count((says == words).all(1))
        row[f"{name}_told"] = count(exact(said_and_applied(net, episode, words.clone())[1], episode.after))
    return row


# ---------------------------------------------------------------- voices

@cache
def voices(size: Size) -> SpokenWords:
    """Words in voices, as numbers."""
    return SpokenWords(size.voices, size.words, progress=False)


def last_pairs(episode: Spoken, k: int) -> Spoken:
    """The query and the `k` examples before it: so that the same queries are asked with fewer."""
    return Spoken(*(getattr(episode, part.name)[:, -k - 1:] for part in fields(episode)))


def said_in(net: EpisodeNet, size: Size, episode: Spoken, split: str) -> dict:
    """How far off the pitch is (`pitch_errors`), and how many queries are nearest to the true voice, and nearest to the
    true word."""
    table, values = voices(size), sounded(net, episode)
    voice, word = episode.voices[:, -1], episode.said[:, -1]
    return {"cents": pitch_errors(table, values, voice, word),
            "voice": count(nearest_voice(table, values, word, table.of[split]) == voice),
            "word": count(nearest_word(table, values, voice, range(len(table.names))) == word)}


def pitch_errors(table: SpokenWords, values: torch.Tensor, voice: torch.Tensor, word: torch.Tensor) -> list[int]:
    """`pitch_error` of sounds (R, 16, 65) in whole cents: -1 where the truth has no pitch, 9999 where none is found."""
    errors = [pitch_error(to_sound(table, one), table.pitch[v, w]) for one, v, w in zip(values, voice, word)]
    return [-1 if np.isnan(error) else round(min(error, 9999)) for error in errors]


def voice_test(net: EpisodeNet, size: Size, split: str, n: int, key: int = 14) -> dict:
    """A word in a voice: by examples, after a wrong voice's, and the ceiling: the truth through the codec. Then invented
    words for sounds: right if nearest to the true word's sound."""
    table, row = voices(size), {}
    for name, wrong in (("right", False), ("wrong", True)):
        episode = spoken(table, dice(key), n, 7, split, wrong)
        for k in (0, 1, 2, 4, 7) if not wrong else (1, 4):
            row[f"{name}_k{k}"] = said_in(net, size, last_pairs(episode, k), split)
    episode = spoken(table, dice(key), n, 7, split)
    row["ceiling"] = {"cents": pitch_errors(table, episode.sounds[:, -1], episode.voices[:, -1], episode.said[:, -1])}
    for name, options in {"k1": {}, "no_support": {"support": False}, "shuffled": {"shuffled": True}}.items():
        episode = new_words(table, dice(key + 1), n, k=1, split=split, **options)
        nearest = nearest_word(table, sounded(net, episode), episode.voices[:, -1], range(len(table.names)))
        row[f"new_{name}"] = count(nearest == episode.said[:, -1])
    return row


# ---------------------------------------------------------------- by gradient instead

def tuning(net: EpisodeNet, size: Size, split: str, k: int, rate: float, key: int = 12) -> dict:
    """Right answers (of `size.tuned`) of nets that were fine-tuned on the examples of an episode and asked without any.

    The answer is the likelier of the two labels of the episode. 0 steps: without examples at all.
    """
    episode = forced(tables(size), dice(key), size.tuned, k=k, split=split)
    pictures, right = glyphs(tables(size), episode.things), dict.fromkeys((0, *TUNED), 0)
    for i in range(size.tuned):
        examples = pictures[i, :-1, None], episode.labels[i, :-1, None]                  # (2 k, 1, 4): episodes of one pair
        known, both = torch.ones(2 * k, 1, dtype=torch.bool), episode.labels[i].unique()
        for steps, tuned in zip(range(TUNED[-1] + 1), fine_tuning(net, label_loss, (*examples, known), rate)):
            if steps in right:
                with torch.no_grad():
                    answer, = tuned((("chunk", pictures[i:i + 1, -1:]), ("words", episode.labels[i:i + 1, -1:, None])))
                right[steps] += int(both[answer[0, 0, both].argmax()] == episode.labels[i, -1])
    return {str(steps): n for steps, n in right.items()}


def tuning_price(k: int, steps: int) -> float:
    """What fine-tuning on 2 k examples and one question costs, in units of the answer from context: a gradient is three
    forward passes, and every step of an episode costs the same."""
    return (3 * steps * 2 * 2 * k + 2) / (2 * (2 * k + 1))


# ---------------------------------------------------------------- the course's own transformer, flat

def flat_ids(episode: Labelled) -> torch.Tensor:
    """Bindings as one row of tokens, 18 for each pair: word, ground, picture. (R, 18 P); words come after 512 codes."""
    words = 512 + named_on(episode)
    return torch.cat([words, episode.pictures], -1).flatten(1)           # (R, P, 2 + 16) -> (R, 18 P)


