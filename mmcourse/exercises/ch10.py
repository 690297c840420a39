"""Exercises of chapter 10: which labels can be known, an episode and its control, what a head matches, a rule of one's
own, and what fades along a training."""
import numpy as np
import torch

from mmcourse.exercises import register

# ---------------------------------------------------------------- which labels can be known

def seen(labels) -> list:
    """For each label of an episode whether an earlier pair has it too."""
    return [label in labels[:i] for i, label in enumerate(labels)]


def _looks_ahead(labels):
    return [labels.count(label) > 1 for label in labels]


def _looks_at_the_neighbour(labels):
    return [i > 0 and labels[i - 1] == label for i, label in enumerate(labels)]


def _finds_itself(labels):
    return [label in labels[:i + 1] for i, label in enumerate(labels)]


def _marks_the_new(labels):
    return [label not in labels[:i] for i, label in enumerate(labels)]


def _asks_the_query(labels):
    return [label == labels[-1] for label in labels]


@register("10.seen", reference=seen, minutes=4, difficulty=1,
          wrong=[_looks_ahead, _looks_at_the_neighbour, _finds_itself, _marks_the_new, _asks_the_query],
          hint="labels[:i] are the labels before pair i; ask for each label whether it is among them")
def check_seen(fn):
    for labels in ([3, 7, 3, 3, 7, 0, 0, 5], [2, 0, 1], [4], [9, 9, 9], [1, 2, 1]):
        given = list(labels)
        got = [bool(x) for x in fn(given)]
        assert given == labels, "you changed the list that you were given: it is still needed"
        expected = seen(labels)
        slips = ((_looks_ahead, "a label that comes later is no help yet: look at the earlier pairs alone"),
                 (_looks_at_the_neighbour, "look at all earlier pairs, not at the one before alone"),
                 (_finds_itself, "each label finds itself: look at the pairs before it, without its own"),
                 (_marks_the_new, "that is True where a label is new; it is to be True where it came before"),
                 (_asks_the_query, "compare each label with the ones before it, not with the query's"))
        why = next((f": {said}" for wrong, said in slips if got == wrong(labels)), "")
        assert len(got) == len(labels), f"{len(labels)} labels have {len(labels)} answers, {len(got)} came"
        assert got == expected, f"for the labels {labels}: {expected} is right, {got} came{why}"


# ---------------------------------------------------------------- an episode

def label_episode(rng, glyphs, labels, pairs) -> tuple:
    """Two glyphs with two labels drawn anew: `pairs` examples that show both, and a query that is any of the two."""
    two_glyphs = rng.choice(glyphs, 2, replace=False)
    two_labels = rng.choice(labels, 2, replace=False)
    order = rng.permutation([0, 1, *rng.integers(2, size=pairs - 2)]).tolist() + [int(rng.integers(2))]
    return [two_glyphs[i] for i in order], [two_labels[i] for i in order]


def _episode(rng, glyphs, labels, order):
    things, names = rng.choice(glyphs, 2, replace=False), rng.choice(labels, 2, replace=False)
    return [things[i] for i in order], [names[i] for i in order]


def _mixed(rng, pairs):
    return rng.permutation([0, 1, *rng.integers(2, size=pairs - 2)]).tolist()


def _forgets_the_query(rng, glyphs, labels, pairs):
    return _episode(rng, glyphs, labels, _mixed(rng, pairs))


def _may_miss_one(rng, glyphs, labels, pairs):
    return _episode(rng, glyphs, labels, rng.integers(2, size=pairs + 1))


def _one_after_the_other(rng, glyphs, labels, pairs):
    return _episode(rng, glyphs, labels, [0] * (pairs // 2) + [1] * (pairs - pairs // 2) + [int(rng.integers(2))])


def _by_turns(rng, glyphs, labels, pairs):
    return _episode(rng, glyphs, labels, [i % 2 for i in range(pairs)] + [int(rng.integers(2))])


def _does_not_mix(rng, glyphs, labels, pairs):
    return _episode(rng, glyphs, labels, [0, 1, *rng.integers(2, size=pairs - 1)])


def _asks_the_first(rng, glyphs, labels, pairs):
    order = _mixed(rng, pairs)
    return _episode(rng, glyphs, labels, [*order, order[0]])


def _asks_the_last(rng, glyphs, labels, pairs):
    order = _mixed(rng, pairs)
    return _episode(rng, glyphs, labels, [*order, order[-1]])


def _asks_the_rarer(rng, glyphs, labels, pairs):
    order = _mixed(rng, pairs)
    return _episode(rng, glyphs, labels, [*order, int(2 * sum(order) < pairs)])


def _picks_an_example(rng, glyphs, labels, pairs):
    order = _mixed(rng, pairs)
    return _episode(rng, glyphs, labels, [*order, rng.choice(order)])


def _labels_stay(rng, glyphs, labels, pairs):
    numbers = range(len(glyphs))
    things, _ = label_episode(rng, numbers, labels, pairs)
    return [glyphs[i] for i in things], [labels[i % len(labels)] for i in things]


def _in_order(rng, glyphs, labels, pairs):
    things, names = np.sort(rng.choice(glyphs, 2, replace=False)), np.sort(rng.choice(labels, 2, replace=False))
    order = [*_mixed(rng, pairs), int(rng.integers(2))]
    return [things[i] for i in order], [names[i] for i in order]


def _one_glyph_twice(rng, glyphs, labels, pairs):
    things, names = rng.choice(glyphs, 2), rng.choice(labels, 2, replace=False)
    order = [*_mixed(rng, pairs), int(rng.integers(2))]
    return [things[i] for i in order], [names[i] for i in order]


def _one_label_twice(rng, glyphs, labels, pairs):
    things, names = rng.choice(glyphs, 2, replace=False), rng.choice(labels, 2)
    order = [*_mixed(rng, pairs), int(rng.integers(2))]
    return [things[i] for i in order], [names[i] for i in order]


def _names_apart(rng, glyphs, labels, pairs):
    things, names = label_episode(rng, glyphs, labels, pairs)
    return things, [*rng.permutation(names[:-1]), names[-1]]


def _takes_positions(rng, glyphs, labels, pairs):
    return label_episode(rng, range(len(glyphs)), range(len(labels)), pairs)


def _its_own_dice(rng, glyphs, labels, pairs):
    return label_episode(np.random.default_rng(0), glyphs, labels, pairs)


MANY = 1000             # episodes of each length: an even chance comes out within 0.1 of 1/2, but for one in 10**9
EVEN = 0.1
EPISODES = ([11, 26, 35, 48, 50], [2, 3, 5, 7], 8), (range(40, 52), range(6), 3), ([30, 90, 60], [8, 6, 7], 2)


def _check_one_episode(things, names, glyphs, labels, pairs):
    for numbers, what in ((things, "things"), (names, "names")):
        assert len(numbers) == pairs + 1, (
            f"{pairs} examples and the query make {pairs + 1} {what}, {len(numbers)} came")
    strange = [n for n in things if n not in glyphs] + [n for n in names if n not in labels]
    assert not strange, (f"take from the numbers that are given, not their positions: {strange[0]} came, of the glyphs "
                         f"{list(glyphs)} and the labels {list(labels)}")
    shown = f"things {things}, names {names} (the last is the query)"
    assert len({*things}) <= 2 and len({*names}) <= 2, f"an episode has two glyphs and two labels, not so: {shown}"
    called = {*zip(things, names)}
    assert len(called) == len({*things}), f"in an episode a glyph keeps its label, not so: {shown}"
    assert len({*things[:-1]}) == 2, (f"both of two different glyphs must be among the {pairs} examples, not so: {shown}")
    assert len({*names}) == 2, f"the two glyphs need two different labels, not so: {shown}"


def _check_many_episodes(made, pairs):
    def even(hits, what, slack=EVEN):
        share = float(np.mean(hits))
        assert abs(share - 0.5) < slack, f"with {pairs} examples {what} in {share:.0%} of {MANY:,} episodes: half is fair"

    things, names = (np.array(part) for part in zip(*made))             # (1000, pairs + 1) each
    assert len({*map(tuple, things.tolist())}) > 1, (
        f"{MANY:,} episodes are all the same, {things[0].tolist()}: draw with the rng that is given")
    examples, query = things[:, :-1], things[:, -1:]                    # (1000, pairs), (1000, 1)
    alike = (examples[:, 1:] == examples[:, :-1]).mean(0)               # (pairs - 1,)
    shares = ", ".join(f"{share:.0%}" for share in alike)
    assert pairs < 3 or ((alike > 0.02) & (alike < 0.98)).all(), (
        f"neighbours among the {pairs} examples are alike in {shares} of {MANY:,} episodes (1 and 2, 2 and 3, ...): mix them, so "
        "that none is always or never like the one before it")
    same = examples == query                                            # (1000, pairs)
    for j in range(pairs):
        even(same[:, j], f"the query is the same glyph as example {j + 1}", slack=0.45)
    often = same.mean(1)
    even((often > 0.5) + 0.5 * (often == 0.5), "the query is the glyph that has more examples")
    for j in range(pairs):
        even(same[:, j], f"the query is the same glyph as example {j + 1}")
    large, larger = query[:, 0] == things.max(1), names[:, -1] == names.max(1)
    even(large, "the query is the glyph with the larger number")
    even(larger, "the query has the larger label")
    even(examples[:, 0] == things.max(1), "the first example is the glyph with the larger number")
    even(large == larger, "the larger glyph has the larger label")


def _check_all_come(made, glyphs, labels):
    """Each number comes, and each label with each glyph."""
    for i, numbers, what in ((0, glyphs, "glyphs"), (1, labels, "labels")):
        never = {*numbers} - {n for episode in made for n in episode[i]}
        assert not never, f"of the {what} {list(numbers)}, {sorted(never)} never came in {MANY:,} episodes: draw from all"
    called = sorted({name for things, names in made for thing, name in zip(things, names) if thing == glyphs[0]})
    assert called == sorted(labels), (f"in {MANY:,} episodes glyph {glyphs[0]} was called {called} alone, of the labels "
                                      f"{list(labels)}: in each episode any label goes with any glyph")


@register("10.label_episode", reference=label_episode, minutes=7, difficulty=2,
          wrong=[_forgets_the_query, _may_miss_one, _one_after_the_other, _by_turns, _does_not_mix, _asks_the_first,
                 _asks_the_last, _asks_the_rarer, _picks_an_example, _labels_stay, _in_order, _one_glyph_twice, _one_label_twice,
                 _names_apart, _takes_positions, _its_own_dice],
          hint="rng.choice(glyphs, 2, replace=False) draws two different ones. Make a list of 0 and 1: one of each, the other "
               "examples any, mixed by rng.permutation; behind it the query, any. Then look up both lists by it")
def check_label_episode(fn):
    rng = np.random.default_rng
    for glyphs, labels, pairs in EPISODES:
        dice, made = rng(pairs), []
        for _ in range(MANY):
            made_one = fn(dice, glyphs, labels, pairs)
            assert len(made_one) == 2, f"return two lists, things and names (not a list of pairs); {len(made_one)} things came"
            things, names = ([int(n) for n in numbers] for numbers in made_one)
            _check_one_episode(things, names, glyphs, labels, pairs)
            made.append((things, names))
        _check_many_episodes(made, pairs)
        _check_all_come(made, glyphs, labels)
    one, same = (fn(rng(5), [1, 2, 3, 4], [5, 6, 7, 8], 6) for _ in range(2))
    assert np.array_equal(one, same), "with the same rng the same episode must come: draw with nothing but the rng that is given"


# ---------------------------------------------------------------- the control

def shuffled(rng, examples):
    """Examples (R, P, ...) dealt out anew, position by position: each episode gets that of another one."""
    out = examples.copy()
    for j in range(examples.shape[1]):
        circle = rng.permutation(len(examples))                         # each takes from the next in a circle
        out[circle, j] = examples[np.roll(circle, -1), j]
    return out


def _may_keep_its_own(rng, examples):
    return np.stack([examples[rng.permutation(len(examples)), j] for j in range(examples.shape[1])], 1)


def _whole_episodes(rng, examples):
    return np.roll(examples, int(rng.integers(1, len(examples))), axis=0)


def _within_episodes(rng, examples):
    return np.stack([episode[rng.permutation(examples.shape[1])] for episode in examples])


def _used_twice(rng, examples):
    R, P = examples.shape[:2]
    other = (np.arange(R)[:, None] + rng.integers(1, R, size=(R, P))) % R
    return examples[other, np.arange(P)]


def _any_position(rng, examples):
    return np.roll(shuffled(rng, examples), 1, axis=1)


def _torn(rng, examples):
    out = shuffled(rng, examples)
    out[..., -1] = np.roll(out[..., -1], 1, axis=0)
    return out


def _in_place(rng, examples):
    examples[:] = shuffled(rng, examples)
    return examples


def _without_dice(rng, examples):
    return np.stack([np.roll(examples[:, j], 1 + j % (len(examples) - 1), axis=0) for j in range(examples.shape[1])], 1)


def _donors(before, got):
    """Of whom each episode has its examples: episodes (R, P). An AssertionError where one is from another position."""
    R, P = before.shape[:2]
    home = {before[r, j].tobytes(): (r, j) for r in range(R) for j in range(P)}
    donors = np.empty((R, P), int)
    for r, j in np.ndindex(R, P):
        where = f"examples of shape {before.shape}, episode {r}, pair {j}"
        found = home.get(got[r, j].astype(before.dtype).tobytes())
        assert found, f"{where}: an example came that nobody had before: move each one as a whole"
        donors[r, j], pair = found
        assert found != (r, j), f"{where}: the episode keeps its own example, and must get that of another one"
        assert found[0] != r, f"{where}: it got pair {pair} of the same episode: take from other episodes"
        assert pair == j, f"{where}: it got pair {pair} of episode {found[0]}: take pair {j}"
    return donors


@register("10.shuffled", reference=shuffled, minutes=6, difficulty=2,
          wrong=[_may_keep_its_own, _whole_episodes, _within_episodes, _used_twice, _any_position, _torn, _in_place,
                 _without_dice],
          hint="position by position: put the episodes in a random circle, circle = rng.permutation(R), and let each take "
               "from the next one, np.roll(circle, -1); write into examples.copy()")
def check_shuffled(fn):
    rng = np.random.default_rng
    for shape in ((16, 8, 3), (2, 3), (5, 4), (24, 4, 2, 3)):
        examples = rng(0).permutation(int(np.prod(shape))).reshape(shape)
        before = examples.copy()
        got = fn(rng(1), examples)
        assert isinstance(got, np.ndarray), f"return a NumPy array, a copy of the one that is given, not a {type(got).__name__}"
        got = got.copy()
        assert np.array_equal(examples, before), "you changed the array that you were given: write into a copy of it"
        assert got.shape == shape, f"the copy has the shape {shape} too, yours has {got.shape}"
        donors = _donors(before, got)
        for j, donor in enumerate(donors.T.tolist()):
            assert len({*donor}) == len(donor), (f"examples of shape {shape}, pair {j}: the episodes got those of episodes "
                                                 f"{donor}: each must be used exactly once")
        if len(shape) > 2:
            assert (donors != donors[:, :1]).any(), (
                "each episode got all its examples from one other episode: deal each position out anew")
            assert not np.array_equal(fn(rng(2), examples), got), "with another rng the same came: draw with the one given"
            assert np.array_equal(fn(rng(1), examples), got), "with the same rng the same must come: draw with nothing else"


# ---------------------------------------------------------------- what a head matches

def prefix_matching(attention, classes):
    """The mean share of the query's look on right halves of examples of its own class (Olsson et al. 2022)."""
    look = attention[:, -2, 1:-2:2]                                     # (R, P - 1): on the right halves of the examples
    alike = classes[:, :-1] == classes[:, -1:]                          # (R, P - 1)
    return (look * alike).sum(1).mean()


def _on_left_halves(attention, classes):
    return (attention[:, -2, 0:-2:2] * (classes[:, :-1] == classes[:, -1:])).sum(1).mean()


def _from_the_last_step(attention, classes):
    return (attention[:, -1, 1:-2:2] * (classes[:, :-1] == classes[:, -1:])).sum(1).mean()


def _of_any_class(attention, classes):
    return attention[:, -2, 1:-2:2].sum(1).mean()


def _of_the_other_class(attention, classes):
    return (attention[:, -2, 1:-2:2] * (classes[:, :-1] != classes[:, -1:])).sum(1).mean()


def _mean_of_matches(attention, classes):
    alike = classes[:, :-1] == classes[:, -1:]
    return ((attention[:, -2, 1:-2:2] * alike).sum(1) / alike.sum(1).clamp(min=1)).mean()


def _without_the_mean(attention, classes):
    return (attention[:, -2, 1:-2:2] * (classes[:, :-1] == classes[:, -1:])).sum()


def _both_halves(attention, classes):
    alike = (classes[:, :-1] == classes[:, -1:]).repeat_interleave(2, 1)
    return (attention[:, -2, :-2] * alike).sum(1).mean()


def _column_for_row(attention, classes):
    return prefix_matching(attention.transpose(1, 2), classes)


def _skips_the_unmatched(attention, classes):
    alike = classes[:, :-1] == classes[:, -1:]
    return (attention[:, -2, 1:-2:2] * alike).sum(1)[alike.any(1)].mean()


def _first_match_alone(attention, classes):
    alike = classes[:, :-1] == classes[:, -1:]
    return (attention[:, -2, 1:-2:2] * (alike & (alike.cumsum(1) == 1))).sum(1).mean()


def _looks(R: int, P: int, seed: int) -> torch.Tensor:
    """Any attention of a head, (R, T, T) with T = 2 P: each row shares 1 among the steps that are not later."""
    T = 2 * P
    scores = torch.randn(R, T, T, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


@register("10.prefix_matching", reference=prefix_matching, minutes=8, difficulty=3,
          wrong=[_on_left_halves, _from_the_last_step, _of_any_class, _of_the_other_class, _mean_of_matches, _without_the_mean,
                 _both_halves, _column_for_row, _skips_the_unmatched, _first_match_alone],
          hint="attention[:, -2] is the query's row; [1:-2:2] of it are the right halves of the examples. Multiply by whether "
               "classes[:, :-1] == classes[:, -1:], add up, and take the mean over the episodes")
def check_prefix_matching(fn):
    slips = ((_on_left_halves, "those are the left halves, steps 0, 2, 4 ...; the right halves are 1, 3, 5 ..."),
             (_from_the_last_step, "row 2 P - 1 is the query's right half, its answer; the query looks from row 2 P - 2"),
             (_of_any_class, "count the examples of the query's own class alone"),
             (_of_the_other_class, "those are the examples of other classes: count the query's own"),
             (_mean_of_matches, "add up over the examples of the query's class: the share is of the whole look"),
             (_without_the_mean, "take the mean over the episodes"),
             (_both_halves, "count right halves alone, not the left ones too"),
             (_column_for_row, "row t says how step t looks: attention[r, t, s] is what t gives to s"),
             (_skips_the_unmatched, "an episode without an example of the query's class counts 0, and is in the mean"),
             (_first_match_alone, "all examples of the query's class count, not the first one alone"))
    for seed, rows in enumerate(("010 110 100", "01101 10000 21012", "44")):
        classes = torch.tensor([[int(digit) for digit in row] for row in rows.split()])
        for attention in (_looks(*classes.shape, seed), _looks(*classes.shape, seed).float()):
            got, expected = torch.as_tensor(fn(attention, classes)), float(prefix_matching(attention, classes))
            assert got.numel() == 1, f"one number is asked for, {got.numel()} came: take the mean over the episodes"
            got = float(got)
            why = next((f": {said}" for wrong, said in slips if abs(got - float(wrong(attention, classes))) < 1e-5), "")
            assert abs(got - expected) < 1e-5, (f"for classes {classes.tolist()}, the query last: {expected:.4f} is right, "
                                                f"{got:.4f} came{why}")


# ---------------------------------------------------------------- a rule of your own

def own_rule(tokens, ground) -> list:
    """Everything falls: in each column of the 4x4 board what is not ground moves down, in its order, as far as it goes."""
    columns = [[token for token in tokens[column::4] if token != ground] for column in range(4)]
    fallen = [[ground] * (4 - len(column)) + column for column in columns]
    return [fallen[i % 4][i // 4] for i in range(16)]


def _floats_up(tokens, ground):
    return own_rule(tokens[::-1], ground)[::-1]


def _falls_to_the_right(tokens, ground):
    turned = own_rule([tokens[4 * (i % 4) + i // 4] for i in range(16)], ground)
    return [turned[4 * (i % 4) + i // 4] for i in range(16)]


def _one_step_down(tokens, ground):
    return [ground] * 4 + list(tokens[:12])


def _as_one_piece(tokens, ground):
    tokens = list(tokens)
    while tokens != [ground] * 16 and all(token == ground for token in tokens[12:]):
        tokens = [ground] * 4 + tokens[:12]
    return tokens


def _upside_down(tokens, ground):
    fallen = list(own_rule(tokens, ground))
    columns = [[token for token in fallen[column::4] if token != ground][::-1] for column in range(4)]
    return [([ground] * (4 - len(columns[i % 4])) + columns[i % 4])[i // 4] for i in range(16)]


def _sorts(tokens, ground):
    columns = [sorted(tokens[c::4], key=lambda token: (token != ground, token)) for c in range(4)]
    return [columns[i % 4][i // 4] for i in range(16)]


def _takes_zero_for_ground(tokens, ground):
    return own_rule(tokens, 0)


def _falls_once(tokens, ground):
    out = list(tokens)
    for i in range(11, -1, -1):
        if out[i + 4] == ground:
            out[i], out[i + 4] = ground, out[i]
    return out


def _column_by_column(tokens, ground):
    columns = [[token for token in tokens[c::4] if token != ground] for c in range(4)]
    return sum(([ground] * (4 - len(column)) + column for column in columns), [])


def _changes_its_board(tokens, ground):
    fallen = own_rule(tokens, ground)
    for i in range(16):
        tokens[i] = fallen[i]
    return tokens


def _board(tokens) -> str:
    return " / ".join(" ".join(str(token) for token in tokens[i:i + 4]) for i in range(0, 16, 4))


@register("10.own_rule", reference=own_rule, minutes=6, difficulty=2,
          wrong=[_floats_up, _falls_to_the_right, _one_step_down, _as_one_piece, _upside_down, _sorts, _takes_zero_for_ground,
                 _falls_once, _column_by_column, _changes_its_board],
          hint="tokens[column::4] is a column, from top to bottom. Keep what is not ground, put ground above it until there are "
               "four; in the end token i of the board is number i // 4 of column i % 4")
def check_own_rule(fn):
    tower = [5, 6, 5, 5, 2, 8, 5, 0, 5, 7, 5, 5, 5, 5, 5, 4]
    floating = [3, 6, 1, 3, 3, 3, 3, 2, 3, 4, 3, 3, 5, 3, 3, 3]
    full = [0, 9, 8, 7, 6, 1, 4, 3, 2, 1, 0, 1, 5, 3, 4, 2]
    for ground, board in ((5, tower), (3, floating), (99, full), (0, full), (7, [7] * 16)):
        expected = own_rule(board, ground)
        slips = ((_floats_up, "that is up; row 3 is the lowest"),
                 (_falls_to_the_right, "that is to the right: fall down, in columns"),
                 (_column_by_column, "the 16 tokens go row by row: the second is in row 0, column 1"),
                 (_one_step_down, "let them fall until they land, not one row"),
                 (_as_one_piece, "each token falls for itself, the board is no block"),
                 (_upside_down, "in a column the tokens keep their order: what was above stays above"),
                 (_sorts, "in a column the tokens keep their order, whatever their numbers"),
                 (_takes_zero_for_ground, "bare patches have the token `ground`, which need not be 0"),
                 (_falls_once, "something still hangs in the air: let it fall all the way"))
        for given in (list(board), np.array(board)):
            got = list(fn(given, ground))
            assert not got or np.ndim(got[0]) == 0, "return one list of 16 numbers, not rows"
            got = [int(token) for token in got]
            why = next((f": {said}" for wrong, said in slips if got == [int(x) for x in wrong(board, ground)]), "")
            assert list(given) == board, "you changed the board that you were given, which is the picture before: make a new list"
            assert len(got) == 16, f"a board has 16 tokens, {len(got)} came"
            assert got == expected, (f"the board {_board(board)} with the ground {ground} becomes {_board(expected)}; yours is "
                                     f"{_board(got)}{why}")


# ---------------------------------------------------------------- what fades

def fades(steps, in_context) -> tuple:
    """(the step of the best look, what is lost from there to the last look); the first of several best."""
    best = max(in_context)
    return steps[list(in_context).index(best)], best - in_context[-1]


def _number_of_the_look(steps, in_context):
    return in_context.index(max(in_context)), max(in_context) - in_context[-1]


def _last_of_the_best(steps, in_context):
    best, step = max(zip(in_context, steps))
    return step, best - in_context[-1]


def _since_the_start(steps, in_context):
    return fades(steps, in_context)[0], max(in_context) - in_context[0]


def _to_the_worst(steps, in_context):
    return fades(steps, in_context)[0], max(in_context) - min(in_context)


def _as_a_change(steps, in_context):
    return fades(steps, in_context)[0], in_context[-1] - max(in_context)


def _of_the_best(steps, in_context):
    return fades(steps, in_context)[0], 1 - in_context[-1] / max(in_context)


def _gives_the_best(steps, in_context):
    return fades(steps, in_context)[0], max(in_context)


@register("10.fades", reference=fades, minutes=5, difficulty=1,
          wrong=[_number_of_the_look, _last_of_the_best, _since_the_start, _to_the_worst, _as_a_change, _of_the_best,
                 _gives_the_best],
          hint="best = max(in_context); in_context.index(best) is the number of its first look; steps has the step of each look")
def check_fades(fn):
    cases = (([0, 50, 100, 200, 400], [0.2, 0.06, 0.9, 0.9, 0.3], (100, 0.6)), ([2, 4, 6], [0.1, 0.8125, 0.3594], (4, 0.4531)),
             ([25, 75, 300], [0.1, 0.3, 0.8], (300, 0.0)), ([10, 20, 30, 40], [0.6, 0.2, 0.1, 0.4], (10, 0.2)),
             ([5], [0.25], (5, 0.0)), ([1, 3, 9], [0.5, 0.5, 0.5], (1, 0.0)))
    for steps, in_context, expected in cases:
        given = list(in_context)
        answer = fn(list(steps), given)
        assert np.ndim(answer) == 1, "return two numbers, (step, lost); one came"
        got, shown = tuple(answer), f"steps {steps}, in context {in_context}"
        assert given == in_context, "you changed the list that you were given: it is still needed"
        assert len(got) == 2, f"return two numbers, (step, lost); {len(got)} came"
        step, lost = float(got[0]), float(got[1])
        why = (": that is the number of the look, not its step" if step == in_context.index(max(in_context)) else
               ": of several best looks the first counts" if step == _last_of_the_best(steps, in_context)[0] else "")
        assert step == expected[0], f"{shown}: the best look is at step {expected[0]}, not {step:g}{why}"
        slips = ((_since_the_start, "that is what was won since the first look; the last look is in_context[-1]"),
                 (_to_the_worst, "that is down to the worst look: take the last"),
                 (_as_a_change, "a loss is best minus last, 0 or more"),
                 (_gives_the_best, "that is the best itself: take the last from it"),
                 (_of_the_best, "that is a share of the best: a difference is asked for"))
        why = next((f": {said}" for wrong, said in slips if abs(lost - wrong(steps, in_context)[1]) < 1e-9), "")
        assert abs(lost - expected[1]) < 1e-6, (
            f"{shown}: {expected[1]:.2f} is lost from the best look to the last, not {lost:.2f}{why}")
