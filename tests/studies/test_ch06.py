"""Chapter 06's studies: the comparison of one net with specialists is as fair as it says, and an arm changes what it says."""
import numpy as np
import pytest
import torch

from mmcourse.dataset import Clips, Mixture, mixture_loss
from mmcourse.recipes.transformer import make_model
from mmcourse.show import sequence
from mmcourse.studies import (
    _ch06,
    ch06_ablations,
    ch06_composing,
    ch06_composition,
    ch06_said_first,
    ch06_specialists,
)
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Vocabulary
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Group, Scene, caption, is_held_out, sample_scene
from tests.helpers import Letters


@pytest.fixture
def world() -> _ch06.SmallWorld:
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, "train") for _ in range(5)]
    clips = Clips([np.arange(6) + i for i in range(4)], ["cat", "key", "bee", "tree"])
    mixture = Mixture(Vocabulary(100, 64, 64, 2), Letters(), scenes, rng.integers(64, size=(5, 64)), clips, {})
    return _ch06.SmallWorld(mixture, mixture)


# ---- the small world

def test_a_specialist_sees_what_the_one_net_sees_of_its_task(world):
    for step in range(3):
        together = world.batch(np.random.default_rng((0, step)), list(_ch06.TASKS))
        apart = [part for task in _ch06.TASKS for part in world.batch(np.random.default_rng((0, step)), [task])]
        assert len(together) == 2 * len(_ch06.TASKS) == len(apart)
        assert all(torch.equal(a, b) for a, b in zip(together, apart))


def test_questions_are_always_the_same(world):
    for direction in _ch06.DIRECTIONS:
        first = world.questions(direction, 3)
        assert first == world.questions(direction, 4)[:3]
        assert [[s.modality for s in pair] for pair in first] == [direction.split("->")] * 3


def test_bits_of_answers_by_hand(world):
    """A model that gives all ids the same chance needs log2(vocabulary) bits a token."""
    class Even(torch.nn.Module):
        def forward(self, ids):
            return torch.zeros(*ids.shape, world.vocabulary.size)
    for direction in _ch06.DIRECTIONS:
        assert _ch06.answer_bits(Even(), world, direction, 2) == pytest.approx(np.log2(world.vocabulary.size), rel=1e-5)

    class Knows(torch.nn.Module):                       # every next id for sure: it reads along
        def forward(self, ids):
            return 50.0 * torch.nn.functional.one_hot(self.row[:, 1:], world.vocabulary.size)
    knows, pack = Knows(), world.vocabulary.pack

    def remember(segments):
        knows.row = torch.tensor([pack(segments)])
        return knows.row[0].tolist()
    world.vocabulary.pack = remember
    assert _ch06.answer_bits(knows, world, "text->image", 2) < 1e-6


@pytest.mark.slow
def test_the_small_worlds_splits_share_no_combination_and_no_voice():
    world = _ch06.small_world(1)
    assert not any(is_held_out(s) for s in world.training.scenes) and all(is_held_out(s) for s in world.held_out.scenes)
    assert len(world.training.scenes) + len(world.held_out.scenes) == 8 * 6
    assert world.training.heard is world.training.clips                # nothing augmented unless asked for


# ---- one net and specialists

def test_a_third_is_a_third():
    whole, third = (sum(p.numel() for p in Transformer(20, **size).blocks.parameters())
                    for size in (ch06_specialists.WHOLE, ch06_specialists.THIRD))
    assert third / whole == pytest.approx(1 / 3, abs=0.005)


def test_every_kind_of_net_learns_every_task_once():
    for kind, (_, nets) in ch06_specialists.NETS.items():
        assert sorted(task for tasks in nets for task in tasks) == sorted(_ch06.TASKS), kind


@pytest.mark.parametrize("direction, share", [("text->image", 1.0), ("image->text", 1.0), ("audio->text", 0.0)])
def test_answers_are_judged_against_their_own_question(world, monkeypatch, direction, share):
    """A model that answers the first question rightly, whatever is asked."""
    scene = Scene((Group("cat", 1, "left"),), "blue")
    world.held_out.scenes[:] = [scene] * 5
    questions = [[world.held_out.text(caption(scene)), world.held_out.image(np.zeros(64, int))]] * 3
    if direction == "image->text":
        questions = [pair[::-1] for pair in questions]
    if direction == "audio->text":                      # three different words: at most the first is right
        questions = [[world.held_out.audio(np.arange(6)), world.held_out.text(word)] for word in ("key", "bee", "cat")]
    monkeypatch.setattr(world, "questions", lambda direction, n: questions)
    letters = {tuple(Letters().encode(" " + text)): text for text in (caption(scene), "key", "bee", "cat")}
    monkeypatch.setattr(world.held_out.bpe, "decode", lambda ids: letters.get(tuple(ids), "?"), raising=False)
    wrong = world.held_out.text("nobody")
    monkeypatch.setattr(ch06_specialists, "generate", lambda model, vocabulary, prompts, want, temperature: [
        wrong if direction == "audio->text" else questions[0][1]] * len(prompts))

    class Reader:
        def read(self, pictures):
            return [scene] * len(pictures)
    monkeypatch.setattr(ch06_specialists, "PictureReader", Reader)
    assert ch06_specialists.share_right(None, world, direction, 3) == share


def test_speech_is_not_judged(world):
    assert ch06_specialists.share_right(None, world, "text->audio", 2) is None


# ---- ablations

def test_an_arm_changes_what_it_says():
    vocabulary, ids = Vocabulary(100, 64, 64, 2), torch.randint(7, 200, (2, 12))
    ids[:, 0] = ids[:, 6] = OPEN["text"]

    def answer(change=None, **size):
        model = make_model(vocabulary, 0, **{**ch06_ablations.WHOLE, **size})
        if change:
            change(model)
        return model(ids)
    base = answer()
    for name, arm in ch06_ablations.ARMS.items():
        assert torch.equal(answer(arm.change, **arm.size), base) == (arm.change is None and not arm.size), name
    weights = torch.rand(2, 12)
    model = make_model(vocabulary, 0)
    same = ch06_ablations.all_tokens_loss(model, ids, weights)["loss"]
    assert same.item() == pytest.approx(mixture_loss(model, ids, torch.ones(2, 12))["loss"].item())
    assert same.item() != pytest.approx(mixture_loss(model, ids, weights)["loss"].item(), rel=1e-6)


def test_an_arm_is_optimized_as_it_says(world, monkeypatch):
    calls, spans = [], []

    def note(model, batch, loss, *, steps, optim, run):
        calls.append((optim, loss, run.seed))
        spans.append((steps, run.until))
        return type("History", (), {"interrupted": False, "cpu_minutes": 0.0})()
    monkeypatch.setattr(ch06_ablations, "train", note)
    monkeypatch.setattr(ch06_ablations, "small_world", lambda nouns, copies=0: world)
    for arm in ch06_ablations.ARMS.values():
        ch06_ablations.learn(arm, 2, ch06_ablations.Plan())
    seen = dict(zip(ch06_ablations.ARMS, calls, strict=True))
    base = seen[ch06_ablations.BASE][0]
    assert (base.name, base.ema_decay, base.warmup) == ("muon", 0.0, 20)
    assert seen["5 times the rates"][0].lr == pytest.approx(5 * base.lr)
    assert seen["5 times the rates"][0].muon_lr == pytest.approx(5 * base.muon_lr)
    assert seen["AdamW, not Muon"][0].name == "adamw" and seen["AdamW, a third of its rate"][0].lr == pytest.approx(base.lr / 3)
    assert seen["running mean of the weights"][0].ema_decay > 0.9
    assert seen["all tokens count the same"][1] is ch06_ablations.all_tokens_loss
    assert all(seed == 2 for _, _, seed in seen.values())
    steps = ch06_ablations.Plan().steps                 # every arm takes as many; of a longer schedule these are the first
    for name, (span, until) in zip(ch06_ablations.ARMS, spans, strict=True):
        longer = ch06_ablations.LONGER if name.startswith(ch06_ablations.MIDWAY) else 1
        assert (span, until) == (longer * steps, steps), name
    assert seen[f"{ch06_ablations.MIDWAY}, running mean"][0].ema_decay > 0.9 and seen[ch06_ablations.MIDWAY][0].ema_decay == 0


def test_normed_queries_and_keys_have_one_length_and_values_are_left_alone():
    linear, x = torch.nn.Linear(8, 24, bias=False), torch.randn(2, 5, 8)
    plain = linear(x).unflatten(-1, (3, 2, 4))
    normed = ch06_ablations.NormedQueriesAndKeys(linear, 2)(x).unflatten(-1, (3, 2, 4))
    assert torch.equal(plain[..., 2, :, :], normed[..., 2, :, :])
    assert torch.allclose(normed[..., :2, :, :].square().mean(-1), torch.ones(()), atol=1e-2)
    assert torch.allclose(normed[..., 0, :, :], torch.nn.functional.layer_norm(plain[..., 0, :, :], (4,)))


def test_a_net_that_diverges_has_a_row_without_bits(monkeypatch):
    def diverge(arm, seed, plan):
        raise FloatingPointError("the loss is nan")
    monkeypatch.setattr(ch06_ablations, "learn", diverge)
    assert ch06_ablations.row(ch06_ablations.Plan(), "as it is", 1) == {"arm": "as it is", "seed": 1, "bits": None}


def rows(arm: str, *bits) -> list[dict]:
    return [{"arm": arm, "seed": s, "bits": b and {"text->image": b}, "parameters": 9, "cpu_minutes": 0.5}
            for s, b in enumerate(bits)]


def test_ablations_are_compared_seed_by_seed(capsys):
    found = ch06_ablations.summary(rows("as it is", 2.0, 3.0, 4.0) + rows("wider", 1.5, 2.4, 3.45)
                                   + rows("other", 2.2, 2.8, 4.0) + rows("wild", 2.0, None, 3.0))
    means = [row["bits"]["text->image"] and row["bits"]["text->image"][0] for row in found]
    assert means[:3] == [pytest.approx(3.0), pytest.approx(-0.55), pytest.approx(0.0)] and means[3] is None
    assert found[1]["bits"]["text->image"][1] == pytest.approx(4.3027 * 0.05 / 3**0.5, rel=1e-3)     # of the differences
    sequence.ablations(found)
    said = capsys.readouterr().out
    assert "-0.550*" in said and "0.000 " in said and "0.000*" not in said and "diverged" in said


def test_one_seed_proves_nothing(capsys):
    found = ch06_ablations.summary(rows("as it is", 2.0) + rows("wider", 1.0))
    assert found[1]["bits"]["text->image"] == (-1.0, float("inf"))
    sequence.ablations(found)
    assert "-1.000*" not in capsys.readouterr().out


# ---- composition

def test_pictures_are_counted_against_their_own_caption(monkeypatch):
    asked, batches = [], []

    class Mixed:
        vocabulary = None

        def text(self, text):
            asked.append(text)
            return text

    def draw(model, vocabulary, prompts, want, **options):
        batches.append(len(prompts))
        return [type("Segment", (), {"ids": (0,) * 64})()] * len(prompts)

    class Reader:                                       # sees the first scene of every batch, and nothing in the second picture
        def read(self, pictures):
            first = scenes[25 * (len(batches) - 1)]
            return [None if i == 1 else first for i in range(len(pictures))]
    rng = np.random.default_rng((1, 77))
    scenes = [sample_scene(rng, "held-out") for _ in range(30)]
    monkeypatch.setattr(ch06_composition, "generate", draw)
    monkeypatch.setattr(ch06_composition, "PictureReader", Reader)
    share = ch06_composition.objects_right(None, Mixed(), "held-out", 30)
    nouns = [[g.noun for g in s.groups] for s in scenes]
    right = sum(nouns[i] == nouns[i // 25 * 25] and i % 25 != 1 for i in range(30))
    assert share == round(right / 30, 4) and batches == [25, 5] and asked == [caption(s) for s in scenes]


# ---- composing: 300 scenes a side

@pytest.mark.parametrize("split", ["train", "held-out"])
def test_pairs_are_two_single_things_of_their_split(split):
    scenes = ch06_composing.pairs(split, 12, seed=5)
    assert all(len(s.groups) == 2 and not s.sign and {g.count for g in s.groups} == {1} for s in scenes)
    assert all(is_held_out(s) == (split == "held-out") for s in scenes)
    assert ch06_composing.pairs(split, 7, seed=5) == scenes[:7] != ch06_composing.pairs(split, 7, seed=6)


def test_both_things_have_to_be_read_each_on_its_side():
    scenes = ch06_composing.pairs("train", 3, seed=5)
    pictures = draw_batch(scenes)
    assert ch06_composing.both_right(pictures, scenes) == [1, 1, 1]
    swapped = [Scene((Group(b.noun, 1, "left"), Group(a.noun, 1, "right")), s.background) for s in scenes for a, b in [s.groups]]
    assert ch06_composing.both_right(pictures, swapped) == [0, 0, 0]


def test_guidance_is_tried_on_other_scenes_than_composing_is_tested_on():
    plan = ch06_composing.Plan()
    tried, tested = (ch06_composing.pairs("held-out", 60, seed) for seed in (plan.choosing, plan.seed))
    assert plan.choosing != plan.seed and len(set(tried) & set(tested)) < 6        # few scenes, so a few come twice
    assert max(plan.choosing, plan.seed) < 1000                                    # validation, both


# ---- words first, practised as often

def test_arms_differ_in_how_often_the_two_ways_are_practised_and_in_nothing_else():
    arms = {name: ch06_said_first.rows_of(name) for name in ch06_said_first.ARMS}
    assert len({sum(rows.values()) for rows in arms.values()}) == 1
    equal = arms["equally often"]
    assert equal["audio->image"] == equal["audio->text->image"]
    for rows in arms.values():
        assert {k: rows[k] for k in ch06_said_first.ALWAYS} == ch06_said_first.ALWAYS


def test_each_way_is_asked_about_the_same_clips_and_judged_by_their_words(world, monkeypatch):
    prompts_of = []

    def draw(model, vocabulary, prompts, want, temperature):
        prompts_of.append(prompts)
        return [world.held_out.image(np.zeros(64, int))] * len(prompts)
    letters = {tuple(Letters().encode(" " + w)): w for w in ("cat", "key", "bee", "tree")}
    said = world.held_out.text("key")
    monkeypatch.setattr(world.training.bpe, "decode", lambda ids: letters[tuple(ids)], raising=False)
    monkeypatch.setattr(ch06_said_first, "small_world", lambda nouns: world)
    monkeypatch.setattr(ch06_said_first, "generate", draw)
    monkeypatch.setattr(ch06_said_first, "caption_first", lambda model, v, prompts: [[*p, said] for p in prompts])
    monkeypatch.setattr(ch06_said_first, "PictureReader", lambda: type("Reader", (), {
        "read": lambda self, pictures: [Scene((Group("bee", 1, "left"),), "blue")] * len(pictures)})())
    monkeypatch.setattr(ch06_said_first.checkpoints, "load", lambda name: type("Net", (), {"decode": lambda self, ids: ids})())
    found = ch06_said_first.measure(None, ch06_said_first.Plan(questions=4))
    assert found == {"n": 4, "word": 1, "direct": 1, "said": 1, "told": 1}         # each word once; one of them is key, one bee
    direct, after, told = prompts_of
    assert [p[0] for p in direct] == [p[0] for p in after] == [p[0] for p in told]
    assert all(len(p) == 1 for p in direct) and all(p[1] == said for p in after) and len({p[1] for p in told}) == 4
