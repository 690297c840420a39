"""Tasks of nets that learn from examples: losses count what is known, answers are marked, rules are said, as loops say.

What is done for all episodes at once is checked here episode by episode.
"""
import copy
from itertools import islice

import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.experiments import learners
from mmcourse.experiments.episodes import COMPOSING, LABELS, RULES, binding, forced, rules
from mmcourse.experiments.learners import (
    FIRST,
    GROUND_WORDS,
    LETTER_WORDS,
    NO_RULE,
    PLACE_WORDS,
    SECOND,
    WORDS,
    applied,
    binding_task,
    bursty_task,
    called,
    drawing_loss,
    drawn,
    fine_tuning,
    forced_task,
    glyphs,
    label_loss,
    learn,
    log_probability,
    named_on,
    others_label,
    rule_loss,
    rule_task,
    rule_words,
    said_and_applied,
    saying_loss,
    saying_parts,
    saying_task,
    some,
    sounded,
    sounds_loss,
    told_backwards,
    voice_task,
)
from mmcourse.experiments.thing_tokens import CELLS, CENTRE, ThingTokens
from mmcourse.experiments.voices import FRAMES, NUMBERS, WORD_IDS, SpokenWords, spoken
from mmcourse.in_context import EpisodeNet
from mmcourse.world.glyphs import AT, GROUNDS, LETTER

R = 6


@pytest.fixture(scope="module")
def tables():
    return ThingTokens(checkpoints.load("glyph_vqvae"), 64, 24)


@pytest.fixture(scope="module")
def voices():
    return SpokenWords((4, 3, 3), (10, 4, 4), progress=False)


def dice(seed=0):
    return np.random.default_rng(seed)


def net(chunk=(16, 512), words=WORDS, **changes):
    torch.manual_seed(0)
    return EpisodeNet(words, chunk, width=16, layers=2, **changes).eval()


def cost(logits, right):
    """- log of the share that `right` gets in the softmax of logits (a list)."""
    weights = np.exp(np.array(logits) - max(logits))
    return float(-np.log(weights[right] / weights.sum()))


class Says(EpisodeNet):
    """A net whose answers and echoes are given by functions of the parts; notes what it is asked."""

    def __init__(self, answers, echoes=None):
        super().__init__(2, (1, 2), width=2, heads=1, layers=1)
        self.answers, self.echoes, self.asked = answers, echoes, []

    def forward(self, *parts):
        self.asked.append(parts)
        return [self.answers(part) for part in parts]

    def with_echo(self, *parts):
        return self(*parts), [self.echoes(part) for part in parts]


def noise(codes):
    """Random logits for any right half, of `codes` kinds; the same for the same."""
    def says(part):
        x = part[1][1][..., 0] if part[1][0] == "words" else part[1][1]
        return torch.randn((*x.shape, codes), generator=torch.Generator().manual_seed(int(x.sum())))
    return says


# ---------------------------------------------------------------- words

def test_no_two_kinds_of_words_overlap():
    labels, grounds, places, letters = (range(first, first + n) for first, n in (
        (0, LABELS), (GROUND_WORDS, len(GROUNDS)), (PLACE_WORDS, len(AT)), (LETTER_WORDS, len(LETTER))))
    each = [*labels, *grounds, *places, *letters, NO_RULE, FIRST, SECOND]
    assert sorted(each) == list(range(WORDS))


def test_training_episodes_have_any_number_of_examples_that_leaves_the_query_room():
    numbers = {some(dice(i)) for i in range(200)}
    assert numbers == set(range(2, 8)) and {some(dice(i), 0) for i in range(200)} == set(range(8))


# ---------------------------------------------------------------- labels

def test_the_loss_of_labels_counts_known_pairs_alone(tables):
    episode = forced(tables, dice(), R, pairs=4)
    pictures, labels, known = glyphs(tables, episode.things), episode.labels, episode.seen
    net_ = net((4, 512), LABELS)
    logits, = net_((("chunk", pictures), ("words", labels[..., None])))
    each = [cost(logits[r, j].tolist(), labels[r, j]) for r in range(R) for j in range(5) if known[r, j]]
    assert 0 < len(each) < 5 * R and label_loss(net_, pictures, labels, known).item() == pytest.approx(np.mean(each), rel=1e-4)


def test_glyphs_are_things_close_up_on_white(tables):
    episode = forced(tables, dice(), R, pairs=4)
    found = glyphs(tables, episode.things)
    for r in range(R):
        for j in range(5):
            whole = tables.compose(np.array(0), np.array([int(episode.things[r, j])]), np.array([CENTRE]))
            assert GROUNDS[0] == "white" and found[r, j].tolist() == whole[CELLS[CENTRE]].tolist()


def test_what_a_net_calls_the_query_is_its_likeliest_word_there(tables):
    episode = forced(tables, dice(), R, k=2)
    net_ = net((4, 512), LABELS)
    answers, = net_((("chunk", glyphs(tables, episode.things)), ("words", episode.labels[..., None])))
    assert called(net_, tables, episode).tolist() == [int(np.argmax(answers[r, -1].tolist())) for r in range(R)]
    other = copy.copy(episode)
    object.__setattr__(other, "labels", torch.cat([episode.labels[:, :-1], (episode.labels[:, -1:] + 1) % LABELS], 1))
    assert torch.equal(called(net_, tables, other), called(net_, tables, episode)), "the true label is not read"


# ---------------------------------------------------------------- bindings

def test_the_loss_of_pictures_counts_known_pairs_and_echoes_all(tables):
    episode = binding(tables, dice(), R, pairs=3)
    says = Says(noise(512), lambda part: noise(512)(part).flip(-1))
    words, pictures, known = named_on(episode), episode.pictures, episode.seen
    answers, echoes = ([x.tolist() for x in xs] for xs in says.with_echo((("words", words), ("chunk", pictures))))
    each, all_echoes = [], []
    for r in range(R):
        for j in range(4):
            here = [(cost(answers[0][r][j][i], t), cost(echoes[0][r][j][i], t)) for i, t in enumerate(pictures[r, j])]
            each += [answer for answer, _ in here if known[r, j]]
            all_echoes += [echo for _, echo in here]
    for echo in (1.0, 0.0, 0.3):
        assert drawing_loss(says, words, pictures, known, echo).item() == pytest.approx(
            np.mean(each) + echo * np.mean(all_echoes), rel=1e-4)


def test_a_binding_is_asked_by_its_label_and_its_ground(tables):
    episode = binding(tables, dice(), R, k=1)
    words = named_on(episode)
    assert all(words[r, j].tolist() == [episode.labels[r, j], LABELS + episode.grounds[r, j]] for r in range(R) for j in range(3))
    says = Says(noise(512))
    answer = drawn(says, episode)
    (((kind, left), (_, right)),), logits = says.asked[0], says.answers((None, ("chunk", episode.pictures)))
    assert kind == "words" and torch.equal(left, words) and torch.equal(right, episode.pictures)
    assert answer.tolist() == [[int(np.argmax(row)) for row in logits[r, -1].tolist()] for r in range(R)]


def test_how_likely_a_picture_is_under_another_name(tables):
    episode = binding(tables, dice(), R, k=2)
    net_, label = net(loud=8.0), torch.arange(R)
    found = log_probability(net_, episode, label)
    for r in range(R):
        words = [[int(episode.labels[r, j]), GROUND_WORDS + int(episode.grounds[r, j])] for j in range(5)]
        words[-1][0] = r
        answers, = net_((("words", torch.tensor([words])), ("chunk", episode.pictures[r:r + 1])))
        total = -sum(cost(answers[0, -1, i].tolist(), episode.pictures[r, -1, i]) for i in range(16))
        assert found[r].item() == pytest.approx(total, rel=1e-4)


def test_told_backwards_the_likelier_of_two_names_is_the_answer(tables):
    episode = binding(tables, dice(3), 40, k=2)
    net_ = net(loud=8.0)
    others, right = others_label(episode), told_backwards(net_, episode)
    own = episode.labels[:, -1]
    for r in range(40):
        other, = {*episode.labels[r].tolist()} - {int(own[r])}
        assert others[r] == other
    mine, theirs = log_probability(net_, episode, own), log_probability(net_, episode, others)
    assert right.tolist() == [a > b for a, b in zip(mine.tolist(), theirs.tolist())] and 0 < right.sum() < 40
    assert torch.equal(episode.labels[:, -1], own), "the episode is as it was"


# ---------------------------------------------------------------- rules

def test_the_loss_of_a_rule_begins_with_the_second_pair_and_echoes_all(tables):
    episode = rules(tables, dice(), R, "glyph", pairs=3)
    says = Says(noise(512), lambda part: noise(512)(part).flip(-1))
    part = ("chunk", episode.before), ("chunk", episode.after)
    (answers,), (echoes,) = says.with_echo(part)
    each = [[cost(x[r, j, i].tolist(), episode.after[r, j, i]) for r in range(R) for j in pairs for i in range(16)]
            for x, pairs in ((answers, (1, 2, 3)), (echoes, range(4)))]
    assert rule_loss(says, episode.before, episode.after).item() == pytest.approx(sum(map(np.mean, each)), rel=1e-4)
    assert applied(says, episode).tolist() == [[int(np.argmax(row)) for row in answers[r, -1].tolist()] for r in range(R)]


def test_the_words_of_rules_row_by_row(tables):
    values = rules(tables, dice(), 300, COMPOSING, pairs=1).values
    found, seen = rule_words(tables, values), set()
    for row, said in zip(values.tolist(), found.tolist()):
        at_work = [(rule, value) for rule, value in zip(RULES, row) if value != -1]
        name = {"recolour": lambda v: GROUND_WORDS + v, "double": lambda v: PLACE_WORDS + v,
                "letter": lambda v: LETTER_WORDS + LETTER.index(tables.whats[v])}
        right = [name[rule](value) for rule, value in at_work]
        assert said == right + [NO_RULE] * (2 - len(right))
        seen.add(tuple(rule for rule, _ in at_work))
    assert seen == {one if isinstance(one, tuple) else (one,) for one in COMPOSING}
    move = rules(tables, dice(), 9, "move", pairs=1).values
    assert rule_words(tables, move)[:, 0].tolist() == [PLACE_WORDS + int(v) for v in move[:, RULES.index("move")]]


def test_saying_has_examples_then_the_rule_then_the_query(tables):
    episode = rules(tables, dice(), R, COMPOSING, pairs=3)
    words = rule_words(tables, episode.values)
    shown, said, asked = saying_parts(episode.before, episode.after, words)
    for r in range(R):
        for j in range(3):
            assert torch.equal(shown[0][1][r, j], episode.before[r, j]) and torch.equal(shown[1][1][r, j], episode.after[r, j])
        assert said[0][1][r].tolist() == [[FIRST], [SECOND]] and said[1][1][r].tolist() == [[int(w)] for w in words[r]]
        assert torch.equal(asked[0][1][r, 0], episode.before[r, 3]) and torch.equal(asked[1][1][r, 0], episode.after[r, 3])
    assert [half[0] for part in (shown, said, asked) for half in part] == ["chunk"] * 2 + ["words"] * 2 + ["chunk"] * 2
    assert [half[1].shape[1] for part in (shown, said, asked) for half in part] == [3, 3, 2, 2, 1, 1]


def test_the_loss_of_saying_term_by_term(tables):
    episode = rules(tables, dice(), R, COMPOSING, pairs=3)
    words = rule_words(tables, episode.values)
    says = Says(noise(512), lambda part: noise(512)(part).flip(-1))
    (shown, said, asked), (echo, *_) = says.with_echo(*saying_parts(episode.before, episode.after, words))
    pictures, echoes, sentences = [], [], []
    for r in range(R):
        for i in range(16):
            pictures += [cost(shown[r, j, i].tolist(), episode.after[r, j, i]) for j in (1, 2)]
            pictures.append(cost(asked[r, 0, i].tolist(), episode.after[r, 3, i]))
            echoes += [cost(echo[r, j, i].tolist(), episode.after[r, j, i]) for j in range(3)]
        sentences += [cost(said[r, n].tolist(), words[r, n]) for n in (0, 1)]
    assert saying_loss(says, episode.before, episode.after, words).item() == pytest.approx(
        np.mean(pictures) + np.mean(echoes) + .3 * np.mean(sentences), rel=1e-4)


class Chain(Says):
    """Says as its second word the first plus one, and as its first always 7; draws a picture full of the second."""

    def __init__(self):
        def hot(x, n):
            return torch.nn.functional.one_hot(x, n).float()

        def answers(part):
            (left, _), (kind, x) = part
            if left == "words" and kind == "words":
                self.first = x[:, 0, 0]
                self.second = x[:, 1, 0]
                return torch.stack([hot(torch.full_like(self.first, 7), WORDS), hot(self.first + 1, WORDS)], 1)
            given = getattr(self, "second", torch.zeros(len(x), dtype=torch.long))
            return hot(given[:, None, None].expand(x.shape), 512)
        super().__init__(answers)


def test_the_second_word_knows_the_first_and_the_picture_both(tables):
    episode = rules(tables, dice(), R, COMPOSING, pairs=3)
    said, answer = said_and_applied(Chain(), episode)
    assert said.tolist() == [[7, 8]] * R and answer.tolist() == [[8] * 16] * R
    told = torch.tensor([[1, 5]] * R)
    said, answer = said_and_applied(Chain(), episode, told)
    assert said.tolist() == [[1, 5]] * R and answer.tolist() == [[5] * 16] * R


def test_a_real_net_says_a_rule_without_reading_the_true_words(tables):
    episode = rules(tables, dice(), R, COMPOSING, pairs=3)
    net_ = net()
    said, answer = said_and_applied(net_, episode)
    one = net_(*saying_parts(episode.before, episode.after, torch.full((R, 2), NO_RULE)))[1][:, 0].argmax(-1)
    words = torch.stack([one, torch.full((R,), NO_RULE)], 1)
    two = net_(*saying_parts(episode.before, episode.after, words))[1][:, 1].argmax(-1)
    words[:, 1] = two
    assert said[:, 0].tolist() == one.tolist() and said[:, 1].tolist() == two.tolist()
    assert torch.equal(answer, net_(*saying_parts(episode.before, episode.after, words))[2][:, 0].argmax(-1))


# ---------------------------------------------------------------- voices

def test_the_loss_of_sounds_counts_known_pairs_and_frames_with_sound(voices):
    episode = spoken(voices, dice(), R, 3)
    net_ = net((FRAMES, NUMBERS), WORD_IDS + len(voices.names), sound=True)
    answers, = net_((("words", episode.words[..., None]), ("chunk", episode.sounds)))
    assert torch.equal(sounded(net_, episode), answers[:, -1])
    numbers, ends = [], []
    for r in range(R):
        for j in range(4):
            for f in range(FRAMES):
                if episode.seen[r, j]:
                    error = (answers[r, j, f] - episode.sounds[r, j, f]).detach().square()
                    ends.append(error[0].item())
                    if episode.sounds[r, j, f, 0] == 1:
                        numbers += error[1:].tolist()
    assert len(ends) == R * 3 * FRAMES and len(numbers) < 64 * len(ends)
    found = sounds_loss(net_, episode.words, episode.sounds, episode.seen).item()
    assert found == pytest.approx(np.mean(numbers) + np.mean(ends), rel=1e-4)


def test_half_of_the_batches_are_new_words(voices):
    batch = voice_task(voices).batch
    new = []
    for i in range(60):
        words, sounds, counts = batch(dice(i))
        assert sounds.shape == (*words.shape, FRAMES, NUMBERS) and counts.shape == words.shape
        new.append(bool((words < WORD_IDS).all()))
        assert new[-1] or (words >= WORD_IDS).all() and counts.all()
        if new[-1]:                                     # what counts is a word that an earlier pair has
            assert all(counts[r, j] == (words[r, j] in words[r, :j]) for r in range(3) for j in range(words.shape[1]))
    assert 20 < sum(new) < 40


# ---------------------------------------------------------------- tasks

TASKS = {"forced": lambda t, v: forced_task(t, 3), "one layer": lambda t, v: forced_task(t, 3, 64, 1),
         "bursty": lambda t, v: bursty_task(t, .5, 16, 3), "endless": lambda t, v: bursty_task(t, 1.0, None, 3),
         "binding": lambda t, v: binding_task(t, 3), "sign": lambda t, v: rule_task(t, "glyph", 3),
         "saying": lambda t, v: saying_task(t, COMPOSING, 3), "voice": lambda t, v: voice_task(v, 3)}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_batches_of_its_size_that_fit_its_net_and_depend_on_the_dice_alone(tables, voices, monkeypatch, name):
    task = TASKS[name](tables, voices)
    first, again, other = (task.batch(dice(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again)) and all(len(x) == 64 for x in (*first, *other))
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, other))
    monkeypatch.setattr(learners, "BATCH", 4)
    torch.manual_seed(0)
    net_ = task.make()
    loss = task.loss(net_, *task.batch(dice(3)))
    loss.backward()
    unused = {n for n, p in net_.named_parameters() if p.grad is None}
    silent = {"chunk.write.weight", "chunk.write.bias", "chunk.head.weight", "chunk.head.bias"} if name in (
        "forced", "one layer", "bursty", "endless") else set() if name == "saying" else {"say.weight", "say.bias"}
    assert loss.isfinite() and unused - {"words.weight"} == silent and task.steps == 3


def test_in_bursty_episodes_all_labels_count_in_forced_ones_those_that_can_be_known(tables):
    *_, counts = bursty_task(tables, .5, 16).batch(dice())
    assert counts.all() and counts.dtype == torch.bool
    _, labels, counts = forced_task(tables).batch(dice())
    assert all(bool(counts[r, j]) == (labels[r, j] in labels[r, :j]) for r in range(64) for j in range(labels.shape[1]))


def test_the_seed_decides_what_is_learned(tables, monkeypatch):
    monkeypatch.setattr(learners, "BATCH", 4)
    task, steps = forced_task(tables, 2, 16, 1), []
    (one, history), (two, _), (other, _) = (learn(task, seed, lambda net, step: steps.append(step)) for seed in (0, 0, 1))
    assert steps == [0, 1] * 3 and len(history.rows) and not one.training
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))


@pytest.mark.slow
def test_a_net_of_two_layers_learns_from_examples(tables):
    """A quarter of the study's steps, 64 glyphs alone: far above chance on glyphs that it never saw."""
    net_, _ = learn(forced_task(tables, 250), 0)
    episode = forced(tables, dice(), 400, k=1, split="test")
    assert (called(net_, tables, episode) == episode.labels[:, -1]).float().mean() > .8
    mixed = forced(tables, dice(), 400, k=1, split="test", shuffled=True)
    assert (called(net_, tables, mixed) == mixed.labels[:, -1]).float().mean() < .65, "from the examples alone"


# ---------------------------------------------------------------- by gradient

def test_fine_tuning_goes_step_by_step_and_leaves_the_net_as_it_was(tables):
    net_, episode = net((4, 512), LABELS), forced(tables, dice(), 1, k=2)
    before = copy.deepcopy(net_.state_dict())
    examples = (glyphs(tables, episode.things)[0, :-1, None], episode.labels[0, :-1, None], torch.ones(4, 1, dtype=torch.bool))
    states = [copy.deepcopy(tuned.state_dict()) for tuned in islice(fine_tuning(net_, label_loss, examples, .01), 4)]
    by_hand = copy.deepcopy(net_)
    adam = torch.optim.Adam(by_hand.parameters(), .01)
    for state in states:
        assert all(torch.equal(value, by_hand.state_dict()[name]) for name, value in state.items())
        loss = label_loss(by_hand, *examples)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert all(torch.equal(value, before[name]) for name, value in net_.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in states[0].items()), "at first as it is"
    assert any(not torch.equal(states[2][name], states[3][name]) for name in before)


def test_fine_tuning_learns_its_examples(tables):
    net_, episode = net((4, 512), LABELS), forced(tables, dice(), 1, k=2)
    examples = (glyphs(tables, episode.things)[0, :-1, None], episode.labels[0, :-1, None], torch.ones(4, 1, dtype=torch.bool))
    losses = [label_loss(tuned, *examples).item() for tuned in islice(fine_tuning(net_, label_loss, examples, .01), 40)]
    assert losses[-1] < .2 < losses[0]
