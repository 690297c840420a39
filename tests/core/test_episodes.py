"""Episodes: composed pictures are what the tokenizer makes of drawings, labels are right, nothing but the examples tells them.

What the makers do at once for all rows is checked here row by row, on drawn boards.
"""
from copy import copy
from dataclasses import fields

import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.experiments.episodes import (
    COMPOSING,
    HELD_OUT,
    HELD_OUT_TWO,
    LABELS,
    RULES,
    TWO_RULES,
    all_appear,
    binding,
    bursty,
    class_of_each,
    deal,
    distinct,
    fixed_label,
    forced,
    in_weights,
    other_than,
    rule_values,
    rules,
)
from mmcourse.experiments.thing_tokens import CELLS, CENTRE, CLEAR, NOTHING, ThingTokens
from mmcourse.vqvae import VQVAE
from mmcourse.world.glyphs import AT, GROUNDS, Board, draw, glyph_split, overlap, placements, thing_sprite
from mmcourse.world.scene import NOUNS

TRAIN, HELD = 192, 40       # glyphs in the tables of these tests


@pytest.fixture(scope="module")
def vqvae():
    return checkpoints.load("glyph_vqvae")


@pytest.fixture(scope="module")
def tables(vqvae):
    return ThingTokens(vqvae, TRAIN, HELD)


def dice(seed=0):
    return np.random.default_rng(seed)


def encoded(vqvae, boards):
    return torch.cat([vqvae.encode(draw(boards[i:i + 256])) for i in range(0, len(boards), 256)]).flatten(1)


def same(one, other):
    return all(torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


# ---------------------------------------------------------------- the tables

def test_composed_boards_of_one_thing_are_those_that_are_drawn(tables, vqvae):
    rng, n = dice(), 2 * len(GROUNDS) * len(AT)
    ground, place, side = (x.flatten() for x in np.meshgrid(range(8), range(9), range(2)))         # all of them
    for pool in (tables.of["train"], tables.of["test"], tables.of["noun"], tables.of["letter"]):
        things = rng.choice(pool, n)
        boards = [Board(GROUNDS[g], ((tables.whats[t], AT[p], bool(s)),)) for g, t, p, s in zip(ground, things, place, side)]
        composed = tables.compose(ground, things[:, None], place[:, None], side[:, None])
        assert composed.dtype == np.int64 and np.array_equal(composed, encoded(vqvae, boards).numpy())


@pytest.mark.parametrize("n", [0, 2, 3])
def test_composed_boards_of_more_things_are_those_that_are_drawn(tables, vqvae, n):
    rng, rows = dice(n), 200
    ways = np.array([[AT.index(at) for at in way] for way in placements(n)], int)
    places = ways[rng.integers(len(ways), size=rows)]
    things, side = rng.integers(len(tables.whats), size=(rows, n)), rng.integers(2, size=(rows, n))
    ground = rng.integers(8, size=rows)
    boards = [Board(GROUNDS[g], [(tables.whats[t], AT[p], bool(s)) for t, p, s in zip(*row)])
              for g, *row in zip(ground, things, places, side)]
    composed = tables.compose(ground, things, places, side)
    assert np.array_equal(composed, encoded(vqvae, boards).numpy())
    none = np.full((rows, 1), NOTHING)
    again = tables.compose(ground.reshape(2, -1), *(np.concatenate([x, none], 1).reshape(2, -1, n + 1)
                                                    for x in (things, places, side)))
    assert np.array_equal(again.reshape(rows, 16), composed), "a thing that is none changes nothing"


def test_the_things_of_the_tables(tables):
    assert {kind: len(some) for kind, some in tables.of.items()} == {
        "train": TRAIN, "validation": HELD, "test": HELD, "noun": 64, "letter": 26}
    assert [tables.whats[i] for i in tables.of["noun"]] == list(NOUNS) and tables.whats[-1] == "letter Z"
    for split in ("train", "validation", "test"):
        assert {glyph_split(tables.whats[i]) for i in tables.pool(split)} == {split}
    glyphs = tables.table[:tables.of["test"].stop]
    plain = {tuple(tokens) for tokens in glyphs[:, 0, 0].tolist()}
    mirrored = [tuple(tokens) for tokens in glyphs[tables.lopsided[:len(glyphs)], 1, 0].tolist()]
    assert len(plain) == len(glyphs) and not plain & set(mirrored), "no glyph is another in disguise"
    ground = np.broadcast_to(tables.ground[:, None], tables.table.shape)
    bare = ~np.broadcast_to(tables.inked[:, :, None], tables.table.shape)
    assert np.array_equal(tables.table[bare], ground[bare]) and (tables.table[~bare] != ground[~bare]).mean() > 0.99
    assert all(CLEAR[i, j] != overlap(AT[i], AT[j]) for i in range(9) for j in range(9))


def test_a_glyph_that_looks_like_another_is_left_out(tables, vqvae):
    numbers, table, _ = tables._glyphs(vqvae, "test", 6, set())
    twins = {tuple(table[1, 0, 0]), tuple(table[4, 1, 0])}              # of one, and of another's mirror image
    fewer, others, _ = tables._glyphs(vqvae, "test", 6, set(twins))
    assert fewer[:4] == [numbers[i] for i in (0, 2, 3, 5)] and len(fewer) == 6
    assert np.array_equal(others[:4], table[[0, 2, 3, 5]])


def test_what_is_its_own_mirror_image(tables):
    for i, what in enumerate(tables.whats):
        assert not (tables.lopsided[i] and np.array_equal(thing_sprite(what), thing_sprite(what, True))), what
    assert 0.8 < tables.lopsided.mean() < 1
    few = copy(tables)                                                  # where nearly all are
    few.lopsided = np.isin(np.arange(len(tables.whats)), [3, 5])
    made = rules(few, dice(), 20, ["mirror"], pairs=2)
    shown = {board.things[0].what for ids in made.before.flatten(0, 1).numpy() for board in readings(tables, ids)}
    assert {tables.whats[3], tables.whats[5]} == shown


def test_another_tokenizer_is_refused():
    with pytest.raises(ValueError, match="take checkpoints.load"):
        ThingTokens(VQVAE(codebook_size=2, dim=2, width=4).eval(), 4, 4)


# ---------------------------------------------------------------- what the makers are made of

def test_numbers_that_differ():
    for n, size in ((3, 3), (4, 16), (9, 4096)):
        some = distinct(dice(), 500, n, size)
        assert some.shape == (500, n) and 0 <= some.min() and some.max() < size
        assert all(len(set(row)) == n for row in some.tolist())
    numbers = np.tile([-1, 0, 1, 2], (500, 1))
    other = other_than(dice(), numbers, 3)
    assert not (other == numbers).any() and [set(column) for column in other.T.tolist()] == [{0, 1, 2}, {1, 2}, {0, 2}, {0, 1}]


def test_sequences_in_which_all_appear_are_equally_likely():
    some, counts = np.unique(all_appear(dice(), 12_000, 3, 4), axis=0, return_counts=True)
    expected = {(a, b, c, d) for a in range(3) for b in range(3) for c in range(3) for d in range(3)
                if {a, b, c, d} == {0, 1, 2} and sorted({a, b, c, d}, key=(a, b, c, d).index) == [0, 1, 2]}
    assert {tuple(row) for row in some.tolist()} == expected and abs(counts / 2000 - 1).max() < 0.1
    assert np.array_equal(all_appear(dice(), 5, 4, 4), np.tile(range(4), (5, 1)))


def favour(classes, at):
    """How often the class of the pair `at` is the one of two that was seen less before it, where one was."""
    first, here = (classes[:, :at] == 0).sum(1), classes[:, at]
    open_ = (first > 0) & (first < at) & (2 * first != at)
    return ((here == 0) == (2 * first < at))[open_].mean()


def test_the_number_of_examples_tells_nothing():
    drawn, exact = (class_of_each(dice(), 20_000, 2, 8, k) for k in (None, 4))
    for at in (3, 5, 7, 8):
        assert abs(favour(drawn, at) - 0.5) < 0.02, at
    assert favour(exact, 7) == 1, "this is what a net would count"
    assert abs((exact[:, -1] == exact[:, 0]).mean() - 0.5) < 0.02, "the query's class is any"
    assert (np.sort(exact[:, :-1], 1) == [0] * 4 + [1] * 4).all()


def test_dealt_out_everybody_has_anothers():
    examples = np.arange(7 * 3).reshape(7, 3)
    dealt = deal(dice(), examples)
    assert not (dealt == examples).any() and np.array_equal(np.sort(dealt, 0), examples)


# ---------------------------------------------------------------- labels

def check_pictures(made, tables, vqvae, split):
    """Shapes, kinds of numbers; pictures show what is said of them; `seen` is right; things are of the split."""
    rows, pairs = made.labels.shape
    assert made.pictures.shape == (rows, pairs, 16) and made.seen.dtype == torch.bool
    assert all(getattr(made, name).dtype == torch.int64 for name in ("pictures", "labels", "things", "grounds", "places"))
    assert set(made.things.flatten().tolist()) <= set(tables.pool(split))
    for row in range(0, rows, max(rows // 10, 1)):
        said = zip(made.things[row].tolist(), made.grounds[row].tolist(), made.places[row].tolist())
        boards = [Board(GROUNDS[ground], ((tables.whats[thing], AT[place]),)) for thing, ground, place in said]
        assert torch.equal(made.pictures[row], encoded(vqvae, boards))
        labels = made.labels[row].tolist()
        assert made.seen[row].tolist() == [label in labels[:i] for i, label in enumerate(labels)]


def check_named(made, classes, shuffled=False):
    """In each row every class was shown, and things have labels one to one."""
    for things, labels in zip(made.things.tolist(), made.labels.tolist()):
        assert len(set(labels[:-1])) == classes and labels[-1] in labels[:-1] and max(labels) < LABELS
        if not shuffled:
            assert len(set(things)) == len(set(zip(things, labels))) == classes


@pytest.mark.parametrize("maker", [forced, binding])
@pytest.mark.parametrize(("split", "classes", "pairs", "k", "at"), [
    ("train", 2, 8, None, CENTRE), ("validation", 4, 4, None, None), ("test", 3, 99, 2, None), ("test", 1, 1, 1, 0)])
def test_things_and_their_labels(tables, vqvae, maker, split, classes, pairs, k, at):
    made = maker(tables, dice(), 60, classes, pairs, k, split=split, at=at)
    assert made.labels.shape == (60, (classes * k if k else pairs) + 1)
    check_pictures(made, tables, vqvae, split)
    check_named(made, classes)
    if k:
        assert all((labels[:-1] == label).sum() == k for labels in made.labels for label in labels.unique())
    assert at is None and len(made.places.unique()) == 9 or made.places.unique().tolist() == [at]
    assert same(made, maker(tables, dice(), 60, classes, pairs, k, split=split, at=at))
    assert not same(made, maker(tables, dice(1), 60, classes, pairs, k, split=split, at=at))


def test_labels_are_any_and_anew(tables):
    made = forced(tables, dice(), 10_000, classes=2, k=1)
    share = torch.bincount(made.labels.flatten(), minlength=LABELS) / made.labels.numel()
    assert abs(share * LABELS - 1).max() < 0.1
    called = {}
    for thing, label in zip(made.things.flatten().tolist(), made.labels.flatten().tolist()):
        called.setdefault(thing, set()).add(label)
    assert min(map(len, called.values())) > LABELS / 2, "a thing has no label of its own"


def test_a_query_of_binding_stands_on_a_ground_of_its_own(tables, vqvae):
    made = binding(tables, dice(), 400, words=3, pairs=6)
    assert not (made.grounds[:, :-1] == made.grounds[:, -1:]).any()
    assert all(len(made.grounds[:, i].unique()) == 8 for i in (0, -1))
    unknown = binding(tables, dice(), 60, words=2, k=2, split="test", support=False)
    check_pictures(unknown, tables, vqvae, "test")
    assert not unknown.seen[:, -1].any() and not (unknown.things[:, :-1] == unknown.things[:, -1:]).any()
    assert not (unknown.grounds[:, :-1] == unknown.grounds[:, -1:]).any()


@pytest.mark.parametrize("maker", [forced, binding])
def test_shuffled_examples_show_the_things_of_others(tables, vqvae, maker):
    made, plain = (maker(tables, dice(), 200, 2, k=2, split="train", shuffled=shuffled) for shuffled in (True, False))
    check_pictures(made, tables, vqvae, "train")
    check_named(made, 2, shuffled=True)
    assert torch.equal(made.labels, plain.labels) and torch.equal(made.things[:, -1], plain.things[:, -1])
    assert torch.equal(made.things[:, :-1].sort(0).values, plain.things[:, :-1].sort(0).values)
    assert (made.things[:, :-1] == made.things[:, -1:]).any(1).float().mean() < 0.1, "but by chance"


# ---------------------------------------------------------------- bursty

def groups(things, labels):
    """How often each class of the examples comes, most first; and of those of the query's class."""
    counts = sorted((things[:-1].count(thing) for thing in set(things[:-1])), reverse=True)
    return counts, things[:-1].count(things[-1])


@pytest.mark.parametrize("classes", [16, 64, None])
def test_bursty_rows(tables, vqvae, classes):
    made = bursty(tables, dice(), 80, 1, classes)
    assert made.labels.shape == (80, 9)
    check_pictures(made, tables, vqvae, "train")
    for things, labels in zip(made.things.tolist(), made.labels.tolist()):
        assert groups(things, labels) == ([3, 3, 1, 1], 3)
        assert len(set(labels)) == len(set(zip(things, labels))) == 4
    own = fixed_label(made.things) == made.labels
    assert own.all() and made.things.max() < classes if classes else own.float().mean() < 0.15
    assert len({tuple(row.index(thing) for thing in row) for row in made.things.tolist()}) > 50, "in any order"
    assert same(made, bursty(tables, dice(), 80, 1, classes))


def test_rows_that_are_not_bursty_and_shares(tables):
    made = bursty(tables, dice(), 2000, 0, 64)
    known = (made.things[:, :-1] == made.things[:, -1:]).sum(1)
    assert abs(known.float().mean() - 8 / 64) < 0.03 and torch.equal(fixed_label(made.things), made.labels)
    anew = bursty(tables, dice(), 200, 0)
    assert all(len(set(row)) == 9 for row in anew.things.tolist())
    mixed = bursty(tables, dice(), 2000, 0.7, 64)
    three = ((mixed.things[:, :-1] == mixed.things[:, -1:]).sum(1) == 3).float().mean()
    assert abs(three - 0.7) < 0.04


def test_in_weights_only_what_is_known_by_heart_helps(tables, vqvae):
    made = in_weights(tables, dice(), 300, 64, labels=8)
    check_pictures(made, tables, vqvae, "train")
    assert not made.seen[:, -1].any() and not (made.things[:, :-1] == made.things[:, -1:]).any()
    assert torch.equal(fixed_label(made.things, 8), made.labels) and len(made.things.unique()) == 64
    assert len(made.things[made.labels == 3].unique()) == 8, "several classes share a label"


# ---------------------------------------------------------------- rules

def readings(tables, ids):
    """The boards of one glyph that have these tokens: nearly always one."""
    ground = next(i for i, token in enumerate(tables.ground) if token in ids)
    for place, cells in enumerate(CELLS):
        if set(np.delete(ids, cells)) == {tables.ground[ground]}:
            hit = (tables.table[:tables.of["test"].stop, :, ground] == ids[cells]).all(-1)      # (things, 2)
            for thing, side in np.argwhere(hit).tolist():
                yield Board(GROUNDS[ground], ((tables.whats[thing], AT[place], bool(side)),))


def obey(tables, board, values):
    """A board after the rules with these values, done by hand."""
    recolour, move, mirror, double, letter, glyph = values
    (what, at, mirrored), = board.things
    at = AT[move] if move >= 0 else at
    mirrored = mirrored != (mirror >= 0)
    things = [(what, at, mirrored)]
    if double >= 0:
        things.append((what, AT[double], mirrored))
    things += [(tables.whats[added], (2, 2)) for added in (letter, glyph) if added >= 0]
    return Board(GROUNDS[recolour] if recolour >= 0 else board.ground, things)


def check_ruled(tables, vqvae, made, split):
    rows, pairs = made.before.shape[:2]
    assert made.after.shape == made.before.shape == (rows, pairs, 16) and made.values.shape == (rows, len(RULES))
    assert all(getattr(made, field.name).dtype == torch.int64 for field in fields(made))
    for before, after, values in zip(made.before.numpy(), made.after, made.values.tolist()):
        for one, other in zip(before, after):
            boards = list(readings(tables, one))
            assert {glyph_split(board.things[0].what) for board in boards} == {split}
            told = encoded(vqvae, [obey(tables, board, values) for board in boards])
            assert (told == other).all(1).any() and one.tolist() != other.tolist()
            assert any(token in other for token in tables.ground), "some ground is left"


@pytest.mark.parametrize("which", [*RULES, *TWO_RULES])
def test_pictures_after_obey_the_rule(tables, vqvae, which):
    names = {which} if isinstance(which, str) else {*which}
    for split, held in (("train", False), ("test", True)):
        made = rules(tables, dice(), 6, [which], pairs=2, split=split, held=held)
        check_ruled(tables, vqvae, made, split)
        at_work = made.values != NOTHING
        assert (at_work == torch.tensor([rule in names for rule in RULES])).all()


def values_in_words(tables, rule, values):
    every = {"recolour": GROUNDS, "move": AT, "double": AT}.get(rule, tables.whats)
    return {every[value] for value in values}


@pytest.mark.parametrize("rule", RULES)
def test_held_out_values_are_in_no_training_row(tables, rule):
    i = RULES.index(rule)
    train = set(rules(tables, dice(), 3000, [rule], pairs=1).values[:, i].tolist())
    held = set(rules(tables, dice(), 1000, [rule], pairs=1, split="test", held=True).values[:, i].tolist())
    assert train == set(rule_values(tables, rule).tolist())
    assert held == set(rule_values(tables, rule, True, "test").tolist())
    if rule == "mirror":
        assert train == held == {0}
    elif rule == "glyph":
        assert train == set(tables.of["train"]) and held == set(tables.of["test"])
        assert train == set(rule_values(tables, rule, False, "test").tolist()), "known values on boards of the test"
    else:
        assert values_in_words(tables, rule, held) == set(HELD_OUT[rule]) and not train & held
        assert len(train | held) == {"recolour": 8, "move": 9, "double": 8, "letter": 26}[rule]


def test_rules_take_turns_and_a_row_has_one(tables):
    made = rules(tables, dice(), 3000, pairs=1)
    at_work = made.values != NOTHING
    assert (at_work.sum(1) == 1).all() and abs(at_work.float().mean(0) * len(RULES) - 1).max() < 0.15
    mixed = rules(tables, dice(), 100, ["move", ("letter", "mirror")], pairs=3)
    assert {tuple(row) for row in (mixed.values != NOTHING).int().tolist()} == {(0, 1, 0, 0, 0, 0), (0, 0, 1, 0, 1, 0)}
    assert same(mixed, rules(tables, dice(), 100, ["move", ("letter", "mirror")], pairs=3))
    assert HELD_OUT_TWO in TWO_RULES and HELD_OUT_TWO not in COMPOSING and set(HELD_OUT_TWO) < set(COMPOSING)


def test_shuffled_rules_are_those_of_others(tables):
    made, plain = (rules(tables, dice(), 50, pairs=3, split="test", shuffled=shuffled) for shuffled in (True, False))
    assert torch.equal(made.before, plain.before) and torch.equal(made.values, plain.values)
    assert torch.equal(made.after[:, -1], plain.after[:, -1])
    for i in range(3):
        assert sorted(made.after[:, i].tolist()) == sorted(plain.after[:, i].tolist())
        assert (made.after[:, i] == plain.after[:, i]).all(1).float().mean() < 0.05


# ---------------------------------------------------------------- what cannot be made

@pytest.mark.parametrize(("make", "said"), [
    (lambda t: forced(t, dice(), 4, pairs=0), "an episode without an example teaches nothing"),
    (lambda t: forced(t, dice(), 4, k=0), "k is a whole number of 1 or more, got 0: each class needs an example"),
    (lambda t: forced(t, dice(), 0), "rows is a whole number"),
    (lambda t: forced(t, dice(), 4, classes=3, pairs=2), "take at least as many pairs as classes"),
    (lambda t: forced(t, dice(), 4, classes=5, labels=4), "take fewer classes or more labels"),
    (lambda t: forced(t, dice(), 4, classes=HELD + 1, k=1, labels=99, split="test"), f"test has {HELD} glyphs"),
    (lambda t: forced(t, dice(), 4, split="dev"), "split is one of train, validation, test, got 'dev'"),
    (lambda t: forced(t, dice(), 4, at=9), "at is a place, 0 to 8"),
    (lambda t: forced(t, dice(), 1, shuffled=True), "take two rows or more"),
    (lambda t: binding(t, dice(), 4, words=4, labels=4, support=False), "5 classes need 5 different labels"),
    (lambda t: bursty(t, dice(), 4, 1.5), "share of the rows, from 0 to 1"),
    (lambda t: bursty(t, dice(), 4, 1, labels=3), "take 4 labels or more"),
    (lambda t: bursty(t, dice(), 4, 1, classes=20), "a multiple of the 16 labels"),
    (lambda t: bursty(t, dice(), 4, 1, classes=100 * LABELS), f"up to the {TRAIN} glyphs"),
    (lambda t: in_weights(t, dice(), 4, None), "endless ones have no label"),
    (lambda t: rules(t, dice(), 4, pairs=0), "a rule without an example cannot be known"),
    (lambda t: rules(t, dice(), 4, []), "which rules?"),
    (lambda t: rules(t, dice(), 4, ["miror"]), "there is no rule 'miror'.*did you mean 'mirror'"),
    (lambda t: rules(t, dice(), 4, [("letter", "glyph")]), "do not both need the corner"),
    (lambda t: rules(t, dice(), 4, [("move", "move")]), "two different ones"),
    (lambda t: rules(t, dice(), 4, "moves"), "did you mean 'move'"),
    (lambda t: rules(t, dice(), 4, ["glyph"], held=True), "say which by split"),
    (lambda t: rules(t, dice(), 4, split="all"), "split is one of"),
])
def test_what_cannot_be_made_says_what_to_do(tables, make, said):
    with pytest.raises(ValueError, match=said):
        make(tables)


def test_wallpapers_are_values_without_end(tables):
    made = rules(tables, dice(), 300, "recolour", pairs=3, wallpapers=True)
    values, bare = made.values[:, 0].numpy(), tables.bare
    held = {int(tables.ground[GROUNDS.index(name)]) for name in HELD_OUT["recolour"]}
    assert values.min() >= 8 and len(set(values)) > 200 and not held & {int(bare[value]) for value in values}
    for ids, value in zip(made.after.numpy(), values):                  # the most frequent token is the wallpaper's
        assert all(np.bincount(picture).argmax() == bare[value] for picture in ids)
    before = [np.bincount(picture).argmax() for picture in made.before.flatten(0, 1).numpy()]
    plain = np.isin(before, tables.ground).mean()
    assert 0.45 < plain < 0.6, "half of the grounds before are wallpapers"


def test_a_thing_on_a_wallpaper_keeps_its_ink(tables):
    things, places = dice().integers(len(tables.whats), size=(50, 1)), dice().integers(9, size=(50, 1))
    on_white, on_paper = tables.compose(np.zeros(50, int), things, places), tables.compose(np.full(50, 8 + 77), things, places)
    assert ((on_white == on_paper) | (on_paper == 77)).all() and (on_paper == 77).any(1).all()
    assert np.array_equal(on_white != tables.ground[0], on_paper != 77) or (on_white == 77).any()


def test_few_values_are_the_first_of_all(tables):
    made = rules(tables, dice(), 200, "glyph", pairs=2, values=4)
    assert set(made.values[:, RULES.index("glyph")].tolist()) == set(rule_values(tables, "glyph")[:4].tolist())
