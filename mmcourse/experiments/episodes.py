"""Episodes to learn from (chapter 10): some examples and a query, as arrays of tokens.

`forced`, `binding`, `bursty`, `in_weights` and `rules` make them. Each takes the tables of `ThingTokens`, a generator
and a number of rows, and gives a `Labelled` or a `Ruled`. The last pair of an episode is the query. In the shapes, R
are rows (episodes), P the pairs of each, the query among them. How many pairs fit is the net's matter.
"""
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from mmcourse.checks import check_whole, whole
from mmcourse.experiments.thing_tokens import CENTRE, CLEAR, CORNER, NOTHING, PLAIN, ThingTokens
from mmcourse.world.glyphs import AT, GROUNDS, LETTER

LABELS = 16                             # words that a thing may be called by


# ---------------------------------------------------------------- pictures with labels

@dataclass(frozen=True)
class Labelled:
    """Episodes of pictures with labels; the query is the last pair. int64, but for `seen`.

    `pictures` (R, P, 16): tokens. `labels` (R, P): what each is called, 0 ... labels - 1. `things`, `grounds`,
    `places` (R, P): what is in them. `seen` (R, P), bool: an earlier pair has the label, so it can be known.
    """
    pictures: torch.Tensor
    labels: torch.Tensor
    things: torch.Tensor
    grounds: torch.Tensor
    places: torch.Tensor
    seen: torch.Tensor


def labelled(tables: ThingTokens, rng: np.random.Generator, things: np.ndarray, labels: np.ndarray,
             grounds: np.ndarray, at: int | None) -> Labelled:
    """Things (R, P) with labels and grounds as episodes, all at the place `at`; None: anywhere."""
    if at is not None and whole(at) not in range(len(AT)):
        raise ValueError(f"at is a place, 0 to {len(AT) - 1} (4 is the centre), or None for any; got {at!r}")
    places = rng.integers(len(AT), size=things.shape) if at is None else np.full(things.shape, at)
    seen = np.tril(labels[:, :, None] == labels[:, None], -1).any(2)
    pictures = tables.compose(grounds, things[..., None], places[..., None])
    return Labelled(*map(torch.from_numpy, (pictures, labels, things, grounds, places, seen)))


def distinct(rng: np.random.Generator, rows: int, n: int, size: int) -> np.ndarray:
    """In each row `n` different numbers below `size`: int64 (rows, n)."""
    if size < 4 * n * n:
        return rng.random((rows, size)).argsort(1)[:, :n]
    out = rng.integers(size, size=(rows, n))
    while len(bad := np.flatnonzero((np.diff(np.sort(out, 1), axis=1) == 0).any(1))):
        out[bad] = rng.integers(size, size=(len(bad), n))
    return out


def other_than(rng: np.random.Generator, numbers: np.ndarray, size: int) -> np.ndarray:
    """For each number below `size` any other one; for -1 any at all."""
    return (numbers + rng.integers(1, size + (numbers < 0), size=numbers.shape)) % size


def all_appear(rng: np.random.Generator, rows: int, classes: int, pairs: int) -> np.ndarray:
    """Sequences in which each of `classes` classes appears, every one equally likely: (rows, pairs).

    Classes are numbered as they appear. A sequence is drawn from left to right; `odds[left, missing]` is the chance
    that `left` more fair draws bring all that are missing, and tells how likely a new one comes next. Among the
    classes that were seen before, all are equally likely: nothing is gained by counting.
    """
    new = np.arange(classes + 1) / classes                              # a draw's chance, if so many are missing
    odds = np.zeros((pairs + 1, classes + 1))
    odds[0, 0] = 1
    for left in range(pairs):
        odds[left + 1] = (1 - new) * odds[left] + new * np.concatenate([[0], odds[left, :-1]])
    out, seen = np.zeros((rows, pairs), np.int64), np.zeros(rows, np.int64)
    for i in range(pairs):
        missing, left = classes - seen, pairs - i
        chance = new[missing] * odds[left - 1, np.maximum(missing - 1, 0)] / odds[left, missing]
        fresh = rng.random(rows) < chance
        out[:, i] = np.where(fresh, seen, rng.integers(np.maximum(seen, 1)))
        seen += fresh
    return out


def class_of_each(rng: np.random.Generator, rows: int, classes: int, pairs: int, k: int | None) -> np.ndarray:
    """The class of each pair of an episode, the query last: (rows, pairs + 1).

    The query's is any, whatever came before it. The examples are drawn at random, each class at least once; or
    exactly `k` times, which is for evaluation: a net that learns so, at every pair, counts which class is still due
    instead of looking.
    """
    examples = (all_appear(rng, rows, classes, pairs) if k is None else
                rng.random((rows, classes * k)).argsort(1) % classes)
    return np.concatenate([examples, rng.integers(classes, size=(rows, 1))], 1)


def deal(rng: np.random.Generator, examples: np.ndarray) -> np.ndarray:
    """Examples (R, P, ...) dealt out anew among the episodes: each pair of each row gets that of another row."""
    rows, pairs = examples.shape[:2]
    if rows < 2:
        raise ValueError("shuffled examples are dealt out among episodes: take two rows or more")
    circles = rng.permuted(np.tile(np.arange(rows), (pairs, 1)), axis=1)        # (P, R): each takes from the next
    out = examples.copy()
    for i, circle in enumerate(circles):
        out[circle, i] = examples[np.roll(circle, -1), i]
    return out


def check_labelled(rows: int, classes: int, pairs: int, k: int | None, labels: int) -> None:
    """ValueError, with what to do, for episodes that cannot be made."""
    check_whole(rows, "rows")
    check_whole(classes, "the number of classes")
    check_whole(labels, "the number of labels")
    if k is not None:
        check_whole(k, "k", hint=": each class needs an example")
    else:
        check_whole(pairs, "pairs", hint=": an episode without an example teaches nothing")
    if k is None and pairs < classes:
        raise ValueError(f"{pairs} pairs cannot show {classes} classes: take at least as many pairs as classes")
    if classes > labels:
        raise ValueError(f"{classes} classes need {classes} different labels, and there are {labels}: take fewer "
                         "classes or more labels")


def forced(tables: ThingTokens, rng: np.random.Generator, rows: int, classes: int = 2, pairs: int = 8,
           k: int | None = None, labels: int = LABELS, split: str = "train", at: int | None = CENTRE,
           shuffled: bool = False) -> Labelled:
    """Labels are drawn anew in each episode: nothing but the examples can tell what a thing is called.

    Args:
        classes: things in an episode.
        pairs: examples, drawn at random. k: instead of it, exactly `k` of each class (for evaluation).
        labels: how many there are.
        split: whose glyphs. at: their place; None: anywhere. The ground is any.
        shuffled: the examples show things of other episodes, and tell nothing of the query's.
    """
    check_labelled(rows, classes, pairs, k, labels)
    order = class_of_each(rng, rows, classes, pairs, k)
    grounds = rng.integers(len(GROUNDS), size=order.shape)
    return named(tables, rng, order, grounds, labels, split, at, shuffled)


def binding(tables: ThingTokens, rng: np.random.Generator, rows: int, words: int = 2, pairs: int = 8,
            k: int | None = None, labels: int = LABELS, split: str = "train", at: int | None = CENTRE,
            shuffled: bool = False, support: bool = True) -> Labelled:
    """Words are bound to things anew in each episode. "A dax is [picture]; draw a dax on blue": a word and a ground
    are told, the picture is asked for. (Or the other way round: what is [picture]?)

    No example of an episode stands on the query's ground: no picture can be copied whole, and no ground tells a word.

    Args: as `forced`, and
        words: things that the examples name.
        support: False: the query is of another word and another thing, which no example has.
    """
    check_labelled(rows, words, pairs, k, labels)
    order = class_of_each(rng, rows, words, pairs, k)
    if not support:
        check_labelled(rows, words + 1, words + 1, None, labels)
        order[:, -1] = words
    grounds = np.repeat(rng.integers(len(GROUNDS), size=(rows, 1)), order.shape[1], 1)
    grounds[:, :-1] = other_than(rng, grounds[:, :-1], len(GROUNDS))
    return named(tables, rng, order, grounds, labels, split, at, shuffled)


def named(tables: ThingTokens, rng: np.random.Generator, order: np.ndarray, grounds: np.ndarray, labels: int,
          split: str, at: int | None, shuffled: bool) -> Labelled:
    """Classes (R, P) become things of a split, with labels that this episode alone gives them."""
    pool, classes = tables.pool(split), order.max() + 1
    if classes > len(pool):
        raise ValueError(f"{split} has {len(pool)} glyphs, too few for {classes} classes: take fewer, or "
                         "ThingTokens with more")
    things = np.take_along_axis(pool.start + distinct(rng, len(order), classes, len(pool)), order, 1)
    words = np.take_along_axis(distinct(rng, len(order), classes, labels), order, 1)
    if shuffled:
        things[:, :-1] = deal(rng, things[:, :-1])
    return labelled(tables, rng, things, words, grounds, at)


# ---------------------------------------------------------------- bursty episodes

BURST = np.array([0, 0, 0, 1, 1, 1, 2, 3])      # whose the eight examples are; 0 is the query's class
STRAYS = np.arange(1, 9)


def bursty(tables: ThingTokens, rng: np.random.Generator, rows: int, share: float, classes: int | None = None,
           labels: int = LABELS, at: int | None = CENTRE) -> Labelled:
    """Training rows, of which a `share` is bursty: eight examples and a query (Chan et al. 2022, 2205.05055).

    In a bursty row the query's class comes three times, one other class three times, and two strays, all four with
    different labels. Any other row has random classes; whether the query's is among the examples is chance.

    Args:
        classes: so many glyphs of training, whose labels never change (`fixed_label`): they can be learnt by heart.
            None: all of them, with labels drawn anew in each row (one that is not bursty can only be guessed).
        labels: how many there are. Take fewer than `classes`, and several classes share one.

    For evaluation, `forced(..., classes=2, k=4, split="test")` asks for what only the examples tell, and `in_weights`
    for what is only known by heart.
    """
    if not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise ValueError(f"share is a share of the rows, from 0 to 1; got {share!r}")
    words = burst_labels(tables, rng, rows, classes, labels)
    burst = rng.random((rows, 1)) < share
    words[:, :4] = np.where(burst, distinct(rng, rows, 4, labels), words[:, :4])
    return arranged(tables, rng, words, np.where(burst, BURST, STRAYS), classes, labels, at)


def in_weights(tables: ThingTokens, rng: np.random.Generator, rows: int, classes: int, labels: int = LABELS,
               at: int | None = CENTRE) -> Labelled:
    """Evaluation rows with the labels of training. Neither the query's class nor its label is among the examples."""
    check_whole(classes, "classes", hint=": endless ones have no label that could be known by heart")
    words = burst_labels(tables, rng, rows, classes, labels)
    words[:, 1:] = other_than(rng, np.repeat(words[:, :1], len(STRAYS), 1), labels)
    return arranged(tables, rng, words, np.tile(STRAYS, (rows, 1)), classes, labels, at)


def fixed_label(things, labels: int = LABELS):
    """The label that a glyph of training keeps. (Glyphs are in random order, so it is any; each label has as many.)"""
    return things % labels


def burst_labels(tables: ThingTokens, rng: np.random.Generator, rows: int, classes: int | None,
                 labels: int) -> np.ndarray:
    """Labels for nine classes, the query's first: (rows, 9), any. ValueError for rows that cannot be made."""
    check_whole(rows, "rows")
    most = len(tables.of["train"])
    if whole(labels) is None or labels < 4:
        raise ValueError(f"a bursty row has four classes with different labels: take 4 labels or more, got {labels!r}")
    if classes is not None and (whole(classes) is None or not 0 < classes <= most or classes % labels):
        raise ValueError(f"classes are a multiple of the {labels} labels, up to the {most} glyphs of training that "
                         f"are in the tables, or None for endless ones; got {classes!r}")
    return rng.integers(labels, size=(rows, len(STRAYS) + 1))


def arranged(tables: ThingTokens, rng: np.random.Generator, words: np.ndarray, who: np.ndarray, classes: int | None,
             labels: int, at: int | None) -> Labelled:
    """Nine classes, given by their labels (R, 9), become things; examples are of the classes `who` (R, 8), shuffled."""
    things = (distinct(rng, *words.shape, len(tables.of["train"])) if classes is None else
              words + labels * rng.integers(classes // labels, size=words.shape))        # fixed_label(things) == words
    order = np.concatenate([rng.permuted(who, axis=1), np.zeros_like(who[:, :1])], 1)
    things, words = (np.take_along_axis(x, order, 1) for x in (things, words))
    return labelled(tables, rng, things, words, rng.integers(len(GROUNDS), size=order.shape), at)


# ---------------------------------------------------------------- rules

RULES = ("recolour", "move", "mirror", "double", "letter", "glyph")
MOVE, DOUBLE, CORNERED = RULES.index("move"), RULES.index("double"), [RULES.index("letter"), RULES.index("glyph")]
HELD_OUT = {"recolour": ("blue", "purple"), "move": ((0, 1), (1, 2)), "double": ((1, 0), (2, 2)),
            "letter": LETTER[20:]}      # values that no training row has, and for `glyph` all that are held out
TWO_RULES = tuple(two for two in combinations(RULES, 2) if two != ("letter", "glyph"))  # these need the same place
HELD_OUT_TWO = ("recolour", "letter")       # for the test of composing; training has these and these two:
COMPOSING = ("recolour", "double", "letter", ("recolour", "double"), ("double", "letter"))


@dataclass(frozen=True)
class Ruled:
    """Episodes of pictures before and after a rule; the query is the last pair. int64.

    `before`, `after` (R, P, 16): tokens. `values` (R, 6): the value of each of `RULES`, -1 if it is not at work: a
    ground, a place, 0 for `mirror`, a thing for `letter` and `glyph`.
    """
    before: torch.Tensor
    after: torch.Tensor
    values: torch.Tensor


def rules(tables: ThingTokens, rng: np.random.Generator, rows: int, which: Sequence = RULES, pairs: int = 4,
          split: str = "train", held: bool = False, shuffled: bool = False, values: int | None = None,
          wallpapers: bool = False) -> Ruled:
    """`pairs` examples and a query that show a rule: one rule with one value in an episode.

    Boards have one glyph. The rules: another ground (`recolour`), another place (`move`), left and right exchanged
    (`mirror`), the thing once more at a place (`double`), a `letter` or a `glyph` in the lower right corner. Of two
    rules, what adds something comes last: a mirrored thing is doubled mirrored, a letter is never mirrored.

    Each example shows its rule: nothing gets the ground that it has or moves to where it is, nothing is mirrored that
    is its own mirror image. Things do not overlap.

    Args:
        which: the rules of which an episode has one; names, or tuples of two names for two at once (`TWO_RULES`).
        split: whose glyphs are on the boards.
        held: whether values are those that training never has (`HELD_OUT`), or the others.
        shuffled: the examples' pictures after are of other episodes, and tell nothing of the query's rule.
        values: of each rule only the first so many values; None: all.
        wallpapers: `recolour` turns grounds into any wallpaper, not into a plain one, and half of the grounds before
            are wallpapers: values without end, as `glyph` has them. (Never into those of the held-out grounds.)
    """
    check_whole(rows, "rows")
    check_whole(pairs, "pairs", hint=": a rule without an example cannot be known")
    sets = np.array([rule_set(one) for one in ([which] if isinstance(which, str) else which)])
    if not len(sets):
        raise ValueError(f"which rules? Take some of {', '.join(RULES)}")
    active = sets[rng.integers(len(sets), size=rows)]                                   # (R, 6)
    choices = {i: rule_values(tables, RULES[i], held, split)[:values] for i in np.flatnonzero(sets.any(0))}
    if wallpapers:
        choices[0] = wallpaper_values(tables)
    drawn = draw_values(rng, active, choices)
    before, after = draw_pairs(tables, rng, drawn, pairs + 1, tables.pool(split), wallpapers)
    if shuffled:
        after[:, :-1] = deal(rng, after[:, :-1])
    return Ruled(*map(torch.from_numpy, (before, after, drawn)))


def rule_set(names: str | Sequence[str]) -> list[bool]:
    """A rule, or two, as which of `RULES` are at work. ValueError for what there is not."""
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if name not in RULES:
            near = difflib.get_close_matches(str(name), RULES, 1)
            raise ValueError(f"there is no rule {name!r}: take one of {', '.join(RULES)}"
                             + (f"; did you mean {near[0]!r}?" if near else ""))
    if len(names) != 1 and tuple(sorted(names, key=RULES.index)) not in TWO_RULES:
        raise ValueError("an episode has one rule, or two different ones that do not both need the corner as "
                         f"'letter' and 'glyph' do; got {names}")
    return [rule in names for rule in RULES]


def rule_values(tables: ThingTokens, rule: str, held: bool = False, split: str = "train") -> np.ndarray:
    """The values of a rule that training has, or those that are held out. (`mirror` has one in any case.)"""
    if rule == "mirror":
        return np.zeros(1, np.int64)
    if rule == "glyph":
        if held and split == "train":
            raise ValueError("held-out values of 'glyph' are glyphs of validation or test: say which by split")
        return np.array(tables.pool(split if held else "train"))
    every = {"recolour": GROUNDS, "move": AT, "double": AT, "letter": LETTER}[rule]
    values = np.array([i for i, value in enumerate(every) if (value in HELD_OUT[rule]) == held])
    if rule == "double":
        values = values[values != CENTRE]                               # beside the centre there is no room
    return values + (tables.of["letter"].start if rule == "letter" else 0)


def wallpaper_values(tables: ThingTokens) -> np.ndarray:
    """All wallpapers, as numbers of grounds, but for those that look like a ground held out of `recolour`."""
    held = tables.ground[rule_values(tables, "recolour", held=True)]
    every = np.arange(PLAIN, len(tables.bare))
    return every[~np.isin(tables.bare[every], held)]


def draw_values(rng: np.random.Generator, active: np.ndarray, choices: dict[int, np.ndarray]) -> np.ndarray:
    """One of its choices for each rule at work, (R, 6); drawn again where two rules leave each other no room."""
    values, bad = np.full(active.shape, NOTHING), np.arange(len(active))
    while len(bad):
        for i, choice in choices.items():
            values[bad, i] = np.where(active[bad, i], rng.choice(choice, len(bad)), NOTHING)
        bad = bad[~room(values[bad]).any(1)]
    return values


def room(values: np.ndarray) -> np.ndarray:
    """Where an episode's thing may stand at first: (R, 9) bool. Nowhere, if the values leave no room."""
    move, double, anywhere = values[:, MOVE, None], values[:, DOUBLE, None], np.arange(len(AT))
    corner = values[:, CORNERED].max(1, keepdims=True) != NOTHING        # (R, 1)
    free = ((double == NOTHING) | CLEAR[double, anywhere]) & (~corner | CLEAR[CORNER])  # of what is added
    free &= (double == NOTHING) | ~corner | CLEAR[CORNER, double]
    return np.where(move == NOTHING, free, (anywhere != move) & np.take_along_axis(free, np.maximum(move, 0), 1))


def draw_pairs(tables: ThingTokens, rng: np.random.Generator, values: np.ndarray, pairs: int,
               pool: range, wallpapers: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Boards before and after the rules at work: tokens (R, P, 16) each. With `wallpapers` half of the grounds are such."""
    recolour, move, mirror, double, letter, glyph = (values[:, i, None] for i in range(len(RULES)))     # (R, 1)
    size, every = (len(values), pairs), np.arange(pool.start, pool.stop)
    ground = other_than(rng, np.broadcast_to(np.where(recolour < PLAIN, recolour, NOTHING), size), PLAIN)
    if wallpapers:
        ground = np.where(rng.random(size) < 0.5, rng.integers(PLAIN, len(tables.bare), size=size), ground)
    place = (rng.random((*size, len(AT))) * room(values)[:, None]).argmax(2)
    thing = np.where(mirror == NOTHING, rng.choice(every, size), rng.choice(every[tables.lopsided[every]], size))
    side = rng.integers(2, size=size)
    before = tables.compose(ground, thing[..., None], place[..., None], side[..., None])

    def over(new, old):
        return np.broadcast_to(np.where(new == NOTHING, old, new), size)
    side = np.where(mirror == NOTHING, side, 1 - side)
    things = thing, np.where(double == NOTHING, NOTHING, thing), over(letter, glyph)
    places, sides = (over(move, place), over(double, 0), np.full(size, CORNER)), (side, side, np.zeros_like(side))
    return before, tables.compose(over(recolour, ground), *(np.stack(x, -1) for x in (things, places, sides)))
