"""Chapter 10's study: whoever answers by a rule gets its counts, prices are right, every row has its shape at toy size."""
import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mmcourse.experiments import learners
from mmcourse.experiments.episodes import COMPOSING, HELD_OUT_TWO, LABELS, RULES, binding, forced, rules
from mmcourse.experiments.learners import GROUND_WORDS, NO_RULE, WORDS, rule_words
from mmcourse.experiments.voices import pitch_error, spoken, to_sound
from mmcourse.in_context import EpisodeNet
from mmcourse.studies import _ch10, ch10_context
from mmcourse.studies._ch10 import EXAMPLES, LOOKS, RULE_EXAMPLES, TUNED, Size

SIZE = Size(64, 24, 12, 6, 2, (4, 3, 3), (10, 4, 4))
TOY = ch10_context.TOY


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(learners, "BATCH", 4)
    monkeypatch.setattr(ch10_context, "BATCH", 4)


def tables():
    return _ch10.tables(SIZE)


def voices():
    return _ch10.voices(SIZE)


class Rule(EpisodeNet):
    """A net of one small block that answers the query of one part by a rule: `answer(left, right) -> (R, ...)` ids, or
    values of sounds. The other pairs' answers are noise."""

    def __init__(self, answer, codes):
        super().__init__(WORDS, (1, 2), width=2, heads=1, layers=1)
        self.answer, self.codes = answer, codes

    def forward(self, *parts):
        (_, left), (kind, right) = parts[-1]
        right = right[..., 0] if kind == "words" else right
        found = self.answer(left, right)
        if right.is_floating_point():
            return [torch.cat([torch.rand_like(right[:, :-1]), found[:, None]], 1)]
        out = torch.rand((*right.shape, self.codes))
        out[:, -1] = 9 * torch.nn.functional.one_hot(found, self.codes)
        return [out]


def looks_up(left, right):
    """The right half of the last example with the query's left half, else of the last; pictures are alike if their tokens are."""
    same = (left[:, :-1] == left[:, -1:]).flatten(2).all(-1)
    return torch.stack([right[r, [*torch.where(row)[0].tolist()][-1] if row.any() else -2] for r, row in enumerate(same)])


# ---------------------------------------------------------------- labels

def test_counts_of_labels_of_who_looks_up_of_who_repeats_and_of_who_knows():
    by = {"looks up": looks_up, "repeats": lambda left, right: right[:, -2], "knows": lambda left, right: right[:, -1]}
    rows = {name: _ch10.forced_test(Rule(answer, LABELS), replace(SIZE, test=200)) for name, answer in by.items()}
    for k in EXAMPLES:
        assert rows["looks up"][f"k{k}"] == rows["knows"][f"k{k}"] == 200 and 60 < rows["repeats"][f"k{k}"] < 140
    assert rows["repeats"]["last_k1"] == rows["repeats"]["last_k3"] == 200
    assert rows["looks up"]["four_k1"] == rows["looks up"]["four_k3"] == 200 and rows["repeats"]["four_k3"] < 100
    for k in (1, 3):
        assert rows["looks up"][f"last_k{k}"] == rows["knows"][f"last_k{k}"] == rows["repeats"][f"k{k}"]
        assert 60 < rows["looks up"][f"shuffled_k{k}"] < 140 and rows["knows"][f"shuffled_k{k}"] == 200


def test_what_is_left_without_each_head_is_that_head_by_head():
    torch.manual_seed(0)
    net, size = EpisodeNet(LABELS, (4, 512), width=16, layers=2).eval(), replace(SIZE, test=200)
    with torch.no_grad():
        for block in net.blocks:
            block.attention.out.weight.mul_(30)
    row = _ch10.forced_test(net, size)

    def right(heads):
        copy = EpisodeNet(**net.config).eval()
        copy.load_state_dict(net.state_dict())
        for layer, head in heads:
            copy.blocks[layer].attention.out.weight.data[:, 8 * head:8 * head + 8] = 0
        return _ch10.count(_ch10.right_labels(copy, size, 2, 200, k=1, split="test")[2])
    assert row["cut"] == [[right([(layer, head)]) for head in (0, 1)] for layer in (0, 1)] and row["k1"] == right([])
    assert row["cut_last_layer"] == right([(1, 0), (1, 1)]) and len({*sum(row["cut"], []), row["k1"]}) > 1


def test_a_look_is_of_validation_and_has_a_score_for_each_head():
    torch.manual_seed(0)
    row = _ch10.forced_look(EpisodeNet(LABELS, (4, 512), width=16, layers=3).eval(), SIZE)
    assert np.shape(row["heads"]) == (3, 2) and all(0 < score < 1 for layer in row["heads"] for score in layer)
    episode, answer, right = _ch10.right_labels(Rule(looks_up, LABELS), SIZE, 1, 30, k=2, split="validation")
    assert right.all() and torch.equal(answer, episode.labels[:, -1])
    assert all(int(thing) in tables().of["validation"] for thing in episode.things.flatten())
    again = forced(tables(), np.random.default_rng((10, 1)), 30, k=2, split="validation")
    assert torch.equal(again.things, episode.things), "the same questions for every net"


def test_who_knows_by_heart_and_who_looks_up_are_told_apart():
    def by_heart(left, right):                          # the label of a glyph of training, found by its tokens
        first = {tuple(row): i for i, row in reversed([*enumerate(tables().table[:64, 0, 0].tolist())])}
        return torch.tensor([first.get(tuple(row), 0) % LABELS for row in left[:, -1].tolist()])
    heart, up = (_ch10.bursty_look(Rule(answer, LABELS), SIZE, 64, "test", 100) for answer in (by_heart, looks_up))
    assert heart["in_weights"] == 100 == up["in_context"] and heart["in_context"] < 30 and up["in_weights"] == 0
    assert "in_weights" not in _ch10.bursty_look(Rule(looks_up, LABELS), SIZE, None, "test", 4)


# ---------------------------------------------------------------- bindings

def test_counts_of_bindings_of_who_draws_the_last_and_of_who_knows():
    """(To neither does a word make a picture likelier: none is told backwards.)"""
    last = _ch10.binding_test(Rule(lambda left, right: on_ground(right[:, -2], left), 512), replace(SIZE, test=60))
    right = _ch10.binding_test(Rule(lambda left, right: right[:, -1], 512), replace(SIZE, test=60))
    for k in EXAMPLES:
        assert right[f"k{k}"] == 60 and 10 < last[f"k{k}"] < 50
        assert right[f"backwards_k{k}"] == last[f"backwards_k{k}"] == 0
    for k in (1, 3):
        assert last[f"last_k{k}"] == 60 and right[f"last_k{k}"] == last[f"k{k}"]
        assert right[f"no_support_k{k}"] == right[f"shuffled_k{k}"] == right[f"four_k{k}"] == 60
        assert last[f"no_support_k{k}"] == 0 and last[f"shuffled_k{k}"] < 10


def on_ground(pictures, words):
    """Pictures (R, 16) on the ground that the query's words name. (A thing at the centre leaves the first patch bare.)"""
    wanted = torch.from_numpy(tables().ground)[words[:, -1, 1] - GROUND_WORDS]
    return torch.where(pictures == pictures[:, :1], wanted[:, None], pictures)


def test_whose_thing_was_drawn_row_by_row():
    episode = binding(tables(), np.random.default_rng(0), 20, k=1, split="test")
    found = _ch10.thing_of(episode.pictures[:, -1], SIZE, episode, episode.things[:, -2])
    assert found.tolist() == (episode.things[:, -2] == episode.things[:, -1]).tolist() and 0 < found.sum() < 20
    assert not _ch10.thing_of(episode.pictures[:, -2], SIZE, episode, episode.things[:, -2]).any(), "on its own ground"


def test_exact_is_all_16_tokens_of_the_query():
    pictures = torch.arange(96).view(2, 3, 16)
    answer = pictures[:, -1].clone()
    assert _ch10.exact(answer, pictures).tolist() == [True, True]
    answer[1, 5] += 1
    assert _ch10.exact(answer, pictures).tolist() == [True, False] and _ch10.count(_ch10.exact(answer, pictures)) == 1


def test_a_pair_is_18_tokens_in_a_row_when_flat():
    episode = binding(tables(), np.random.default_rng(0), 5, k=1)
    ids = _ch10.flat_ids(episode)
    assert ids.shape == (5, 18 * 3)
    for r in range(5):
        row = []
        for j in range(3):
            row += [512 + int(episode.labels[r, j]), 512 + GROUND_WORDS + int(episode.grounds[r, j])]
            row += episode.pictures[r, j].tolist()
        assert ids[r].tolist() == row
    assert ids.max() < 512 + WORDS and ch10_context.PAIR_TOKENS == 18


# ---------------------------------------------------------------- rules

def test_counts_of_rules_of_who_repeats_and_of_who_knows():
    for rule in ("glyph", "recolour", "move", "double"):
        knows = _ch10.rule_test(Rule(lambda left, right: right[:, -1], 512), SIZE, rule, "test", 20)
        last = _ch10.rule_test(Rule(lambda left, right: right[:, -2], 512), SIZE, rule, "test", 20)
        for name in ("seen", "held"):
            assert all(knows[f"{name}_k{k}"] == 20 for k in RULE_EXAMPLES) and knows[f"{name}_shuffled"] == 20
            assert last[f"{name}_last"] == 20 and last[f"{name}_k4"] == knows[f"{name}_last"] < 5
        assert {key for key in knows} == {key for key in last} and len(knows) == 2 * (len(RULE_EXAMPLES) + 2)


class Sayer(Rule):
    """Knows the rule's words (but for the second of every other episode) and draws what follows from what was said: the
    truth if the words are those that are true."""

    def __init__(self, truth, wrong):
        super().__init__(lambda left, right: right, 512)
        self.truth, self.wrong = truth, wrong

    def forward(self, *parts):
        truth = self.truth
        said = torch.where(self.wrong[:, None] & torch.tensor([[False, True]]), (truth + 1) % WORDS, truth)
        given, (_, after) = parts[1][1][1][..., 0], parts[2][1]
        drawn = torch.where((given == truth).all(1)[:, None, None], after, (after + 1) % 512)
        return [torch.empty(0), *(torch.nn.functional.one_hot(x, n).float() for x, n in ((said, WORDS), (drawn, 512)))]


def test_counts_of_composing_said_told_and_direct():
    """The net knows the words of one kind of episodes at a time; of the second words it says every other one wrong."""
    n, kinds = 10, {"one": [one for one in COMPOSING if isinstance(one, str)],
                    "two": [one for one in COMPOSING if not isinstance(one, str)], "held_two": [HELD_OUT_TWO]}
    for name, which in kinds.items():
        episode = rules(tables(), np.random.default_rng((10, 11)), n, which, pairs=4, split="test")
        words = rule_words(tables(), episode.values)
        assert (words[:, 1] == NO_RULE).all() if name == "one" else (words[:, 1] != NO_RULE).all()
        row = _ch10.composing_test(Sayer(words, torch.arange(n) % 2 == 1), SIZE, COMPOSING, True, n)
        assert (row[name], row[f"{name}_said"], row[f"{name}_told"]) == (5, 5, 10)
    at_work = [{RULES[i] for i in torch.where(row != -1)[0]} for row in episode.values]
    assert at_work == [{*HELD_OUT_TWO}] * n and HELD_OUT_TWO not in COMPOSING
    direct = _ch10.composing_test(Rule(lambda left, right: right[:, -1], 512), SIZE, COMPOSING, False, n)
    assert direct == {"one": 10, "two": 10, "held_two": 10}


# ---------------------------------------------------------------- voices

def test_the_last_pairs_are_the_query_and_the_examples_before_it():
    episode = spoken(voices(), np.random.default_rng(0), 4, 7, "test")
    for k in (0, 1, 4, 7):
        part = _ch10.last_pairs(episode, k)
        for field in fields(episode):
            whole, some = getattr(episode, field.name), getattr(part, field.name)
            assert some.shape[1] == k + 1
            assert all(torch.equal(some[:, j], whole[:, 7 - k + j]) for j in range(k + 1)), field.name


def test_errors_of_pitch_one_by_one(monkeypatch):
    table, episode = voices(), spoken(voices(), np.random.default_rng(0), 4, 1, "test")
    values, voice, word = episode.sounds[:, -1].clone(), episode.voices[:, -1], episode.said[:, -1]
    values[1] = 0                                       # a silence
    pitch = table.pitch.copy()
    pitch[voice[2], word[2]] = np.nan                   # a truth without a pitch
    pitch[voice[3], word[3]] *= 2                       # an octave off
    monkeypatch.setattr(table, "pitch", pitch)
    found = _ch10.pitch_errors(table, values, voice, word)
    assert found[0] == round(pitch_error(to_sound(table, values[0]), pitch[voice[0], word[0]])) and 0 <= found[0] < 150
    assert found[1:3] == [9999, -1] and 1000 < found[3] < 1400 and all(isinstance(error, int) for error in found)


def test_counts_of_voices_of_who_says_the_truth_and_of_who_repeats():
    size = replace(SIZE, test=6)
    true = _ch10.voice_test(Rule(lambda left, right: right[:, -1], 1), size, "test", 6)
    for name in ("right_k0", "right_k7", "wrong_k1", "wrong_k4"):
        assert true[name]["voice"] == true[name]["word"] == 6
    assert true["right_k0"] == true["right_k4"] and true["right_k1"]["cents"] == true["ceiling"]["cents"]
    assert true["new_k1"] == true["new_no_support"] == true["new_shuffled"] == 6
    repeats = _ch10.voice_test(Rule(lambda left, right: right[:, max(-2, -right.shape[1])], 1), size, "test", 6)
    assert repeats["right_k1"]["word"] < 3 and repeats["new_no_support"] == 0 and repeats["new_k1"] < 6
    assert {*true} == {*(f"right_k{k}" for k in (0, 1, 2, 4, 7)), "wrong_k1", "wrong_k4", "ceiling", "new_k1", "new_no_support",
                       "new_shuffled"}


# ---------------------------------------------------------------- by gradient

def test_what_fine_tuning_costs_counted_by_hand():
    """A step of an episode is 1; a gradient 3 forward passes. Context: 2 examples and a query, 2 steps each: 6. Tuning: 4
    times forward and backward over the 2 examples of 2 steps each: 48, and the question: 2."""
    assert _ch10.tuning_price(1, 4) == pytest.approx(50 / 6)
    assert _ch10.tuning_price(4, 10) == pytest.approx((10 * 3 * 16 + 2) / 18) and _ch10.tuning_price(1, 0) == pytest.approx(2 / 6)


def test_fine_tuned_answers_are_counted_step_by_step(monkeypatch):
    monkeypatch.setattr(_ch10, "TUNED", (1, 4, 24))
    torch.manual_seed(0)
    net, size, k = EpisodeNet(LABELS, (4, 512), width=16, layers=1).eval(), replace(SIZE, tuned=2), 1
    found = _ch10.tuning(net, size, "validation", k, 1e-2)
    episode = forced(tables(), np.random.default_rng((10, 12)), 2, k=k, split="validation")
    right = dict.fromkeys(found, 0)
    for i in range(2):
        pictures = learners.glyphs(tables(), episode.things[i])                          # (3, 4)
        own, = {*episode.labels[i].tolist()} - {int(episode.labels[i, -1])}
        tuned = EpisodeNet(**net.config).eval()
        tuned.load_state_dict(net.state_dict())
        adam = torch.optim.Adam(tuned.parameters(), 1e-2)
        for step in range(25):
            if str(step) in found:
                logits = tuned((("chunk", pictures[None, -1:]), ("words", torch.zeros(1, 1, 1).long())))[0][0, 0]
                right[str(step)] += int(logits[episode.labels[i, -1]] > logits[own])
            adam.zero_grad()
            labels = episode.labels[i, :-1]
            answers = tuned((("chunk", pictures[:-1, None]), ("words", labels[:, None, None])))[0][:, 0]
            torch.nn.functional.cross_entropy(answers, labels).backward()
            adam.step()
    assert found == right and [*found] == ["0", "1", "4", "24"] and max(found.values()) == 2


# ---------------------------------------------------------------- the study

def test_a_training_is_looked_at_along_the_way_and_not_disturbed():
    task = learners.forced_task(tables(), 16, 16, 1)
    asked = []

    def look(net):
        asked.append(net.training)
        return {"k1": _ch10.forced_look(net, SIZE)["k1"]}
    net, history, along = _ch10.looked_at(task, 0, look)
    assert [row["step"] for row in along] == sorted({max(round(share * 16), 1) for share in LOOKS}) and along[-1]["step"] == 16
    assert not any(asked) and all("k1" in row for row in along) and not history.interrupted
    alone, _ = learners.learn(task, 0)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), alone.parameters()))


def test_jobs_have_rows_of_their_own_and_all_seeds_but_what_is_trained_once():
    made = ch10_context.jobs(ch10_context.Plan(), (0, 1, 2))
    keys = [(job.section, json.dumps(job.key, sort_keys=True)) for job in made]
    assert len({*keys}) == len(keys), "no row replaces another"
    names = {job.name for job in made}
    for job in made:
        if job.section != ("shipped",):
            seeds = {other.seed for other in made if other.name == job.name and not other.optional}
            once = job.name.split(", ", 1)[1] in ch10_context.ONCE
            assert seeds == ({0} if once else {0, 1, 2}), job.name
    assert {"forced, two layers", "binding, with echo", "voices, one net", "rules, sign", "map, 0.9 of 4096",
            "map, 1 of endless", "composing, said first", "tuning, from forced", "flat, flat", "shipped, voice"} <= names


ROWS = {"forced": lambda: ch10_context.forced_row(TOY, "one layer", 0), "map": lambda: ch10_context.bursty_row(TOY, .5, 4096, 0),
        "endless": lambda: ch10_context.bursty_row(TOY, .5, None, 0),
        "binding": lambda: ch10_context.binding_row(TOY, "without echo", 0),
        "voices": lambda: ch10_context.voice_row(TOY, 0), "rules": lambda: ch10_context.rule_row(TOY, "sign, 4 values", 0),
        "direct": lambda: ch10_context.composing_row(TOY, False, 0), "said": lambda: ch10_context.composing_row(TOY, True, 0),
        "flat": lambda: ch10_context.flat_row(TOY, 0)}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_at_toy_size_is_plain_numbers_within_bounds(name):
    row = ROWS[name]()
    assert json.loads(json.dumps(row, allow_nan=False)) == row and row["seed"] == 0
    counts = [v for key, v in row.items() if type(v) is int and key not in ("seed", "parameters", "classes")
              and not key.startswith("tokens")]
    assert row["n"] == TOY.size.test and all(0 <= v <= row["n"] for v in counts)
    if name in ("forced", "binding", "rules", "map", "flat"):
        assert [look["step"] for look in row["along"]] == ([1] if name == "rules" else [1, 2])     # a sign: a third


@pytest.mark.slow
def test_a_row_of_tuning_at_toy_size():
    row = ch10_context.tuning_row(TOY, "by heart", 0)
    assert {*row} == {"start", "seed", "n", "cpu_minutes", "k1", "k4"} and row["k1"]["rate"] in _ch10.RATES
    assert row["k4"]["price"]["8"] == round(_ch10.tuning_price(4, 8), 2) and [*row["k1"]["right"]] == ["0", *map(str, TUNED)]


def test_what_the_rows_rest_on_is_named():
    assert {*ch10_context.head(TOY)["made_with"]} == {"glyph_vqvae", "codec", "transformer"}
