"""Chapter 09's study: rows become tokens as they say, judges know true drawings, arms say what they say."""
import dataclasses

import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.studies import _ch09, ch09_facts
from mmcourse.vocabulary import Segment
from mmcourse.vqvae import VQVAE
from mmcourse.world.facts import FACT_WORLD, NOUNS, ROWS, make_facts
from mmcourse.world.scene import Scene


@pytest.fixture
def data() -> _ch09.FactData:
    torch.manual_seed(0)
    facts = make_facts(0, dict.fromkeys("DTEN", 1))
    vqvae = VQVAE(codebook_size=64, dim=16, width=8).eval()
    return _ch09.FactData(facts, checkpoints.load("bpe"), vqvae, dict.fromkeys(ROWS, 1))


class Oracle(_ch09.Net):
    """A net that knows: it answers every question, and draws the noun that the last text names."""

    def ask(self, questions):
        facts = self.data.facts
        known = dict(facts.question(name) for name in facts.of("DTE"))
        return [known.get(question, "a key") for question in questions]

    def draw(self, prompts):
        def noun(text: str) -> str:
            return next((noun for noun in NOUNS if f"a {noun} " in text), "key")
        return [(noun(texts[-1]), texts[-1]) for texts in prompts]

    def paint(self, segments):
        scenes = [s for s in _ch09.every_scene()]
        return FACT_WORLD.draw([next(s for s in scenes if s.groups[0].noun == noun and s.background in text and s.groups[0].place in text)
                                for noun, text in segments])


# ---- judges

def test_both_judges_read_true_drawings():
    scenes = _ch09.every_scene()
    assert len(scenes) == 192 and _ch09.read_scenes(FACT_WORLD.draw(scenes)) == scenes
    noise = 0.05 * torch.randn(192, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert _ch09.read_scenes((FACT_WORLD.draw(scenes) + noise).clamp(0, 1)) == scenes


@pytest.mark.slow
def test_the_second_judge_reads_moved_drawings():
    moved = _ch09.moved(_ch09.every_scene(), np.random.default_rng(5))
    seen = _ch09.read_by_net(_ch09.picture_judge(), FACT_WORLD.draw(moved))
    assert np.mean([a == s.groups[0].noun for a, s in zip(seen, moved)]) > 0.95


# ---- rows

def test_sentences_count_in_full_and_of_answers_what_is_answered(data):
    text = [data.text("ab"), data.text("cd")]
    ids, weights = data.weighted("fact", text[:1])
    assert ids == data.vocabulary.pack(text[:1]) and weights[1:] == [1.0] * (len(ids) - 1)
    ids, weights = data.weighted("question", text)
    given = len(data.vocabulary.pack(text[:1]))
    assert ids == data.vocabulary.pack(text) and weights[:given + 1] == [0.1] * (given + 1)
    assert set(weights[given + 1:]) == {_ch09.TEXT_WEIGHT}
    image = Segment("image", (0,) * 16)
    for kind, segments, answers in (("chain", [*text, image], 2), ("told in the prompt", [*text, image], 1),
                                    ("draw a name", [text[0], image], 1)):
        ids, weights = data.weighted(kind, segments)
        counted = sum(len(data.vocabulary.pack([s])) for s in segments[-answers:]) - 1
        assert len(ids) == len(weights) and sum(w >= 1 for w in weights) == counted


def test_a_batch_has_its_rows_and_each_scene_its_own_tokens(data):
    data.rows = {"fact": 3, "draw a noun": 2, "question": 0.5}
    parts = data.batch(np.random.default_rng(0))
    assert sum(len(ids) for ids in parts[::2]) in (5, 6)
    sizes = [sum(len(ids) for ids in data.batch(np.random.default_rng(i))[::2]) for i in range(60)]
    assert 5.2 < np.mean(sizes) < 5.8                                  # a half: one in every other batch
    for kind in ROWS:
        row = data.facts.row(kind, np.random.default_rng(1))
        segments = data.segments(kind, np.random.default_rng(1))
        assert [s.modality for s in segments] == ["image" if isinstance(part, Scene) else "text" for part in row]
        assert data.vocabulary.unpack(data.vocabulary.pack(segments)) == segments


def test_own_pictures_are_rows(data):
    image = Segment("image", tuple(range(16)))
    data.own = [("a gibo on the left, red ground", image)]
    assert data.segments("own picture", np.random.default_rng(0)) == [data.text("a gibo on the left, red ground"), image]


# ---- arms

def test_an_oracle_says_and_draws_what_is_right_and_nothing_directly(data):
    net = Oracle(None, data)
    prompts = data.facts.prompts("T")
    for way, share in (("direct", 1 / 12), ("said_first", 1.0), ("noun_itself", 1.0)):
        images, said = getattr(net, way)(prompts)
        scenes = _ch09.read_scenes(net.paint(images))
        right = [s.groups[0].noun == p.noun for s, p in zip(scenes, prompts)]
        assert np.mean(right) == pytest.approx(share), way
        assert all(words == (f"a {p.noun}" if way == "said_first" else "") for words, p in zip(said, prompts))
    assert [s == p.scene for s, p in zip(scenes, prompts)] == [True] * len(prompts)


def test_counts_of_an_arm_by_hand(data, monkeypatch):
    monkeypatch.setattr(ch09_facts, "picture_judge", lambda steps: None)
    monkeypatch.setattr(ch09_facts, "read_by_net", lambda net, pictures: ["key"] * len(pictures))
    prompts = data.facts.prompts("T")
    drawn = [p.scene if i % 4 else dataclasses.replace(p.scene, background="white") for i, p in enumerate(prompts)]
    row = ch09_facts.judged(ch09_facts.TOY, prompts, FACT_WORLD.draw(drawn), full=True)
    moved = sum(p.ground != "white" for p in prompts[::4])
    assert row["n"] == 48 == row["k"] and row["k_net"] == 4 and row["exact"] == 48 - moved
    assert row["names"] == "4" * 12 and row["drawn"] == [4] * 12


def test_t_is_halved_and_own_pictures_stand_under_captions_that_say_no_noun(data):
    facts = make_facts()
    learned, others = ch09_facts.halves_of(facts)
    assert sorted(learned + others) == sorted(facts.of("T")) and len(learned) == len(others) == 30
    assert {len([n for n in learned if facts.noun(n) == noun]) for noun in NOUNS} == {2, 3}
    prompts = data.facts.prompts("T", out=False)
    own = ch09_facts.own_pictures(Oracle(None, data), prompts)
    assert [caption for caption, _ in own] == [p.text for p in prompts]
    assert all(p.noun in image[1] and p.name not in image[1] for p, (_, image) in zip(prompts, own))


def test_each_fact_is_read_as_often_as_the_plan_says(monkeypatch):
    monkeypatch.setattr(ch09_facts, "tokenizer", lambda steps: VQVAE(codebook_size=64, dim=16, width=8).eval())
    plan = ch09_facts.Plan(steps=100, names=48)
    for readings in (4, 16):
        data = ch09_facts.make_data(plan, 0, readings=readings)
        assert data.rows["fact"] * plan.steps == readings * len(data.facts.of("DTE"))


def test_shares_of_d_add_up():
    for drawn in ch09_facts.SHARES.values():
        assert 0 <= drawn <= 20 - 5 - 1 - 1                            # T, one never, and one in E at least


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_a_flow_learns_and_paints_from_what_the_reader_makes_of_a_caption(frozen, data):
    data.rows = {"fact": 2, "draw a noun": 2}
    flow = _ch09.FlowData(data)
    prompts, values, *texts = flow.batch(np.random.default_rng(0))
    assert prompts.shape == (2, _ch09.PROMPT) and values.shape == (2, 16, 16) and [len(part) for part in texts] == [2, 2]
    net, model = _ch09.read_and_paint(flow, 2, frozen=frozen)
    assert model.encoder is net.model and model.painter.trunk.prompt_embed.encoder is model.encoder
    assert {p.requires_grad for p in model.encoder.parameters()} == {not frozen}
    assert flow.paint(model, ["a fish on the left, blue ground"]).shape == (1, 3, 32, 32)


def test_latents_of_true_drawings_are_decoded_as_by_the_tokenizer(data):
    """A flow that paints a drawing's own latents paints what the decoder makes of them."""
    flow = _ch09.FlowData(data)
    scene = data.facts.prompts("T")[0].scene
    picture = FACT_WORLD.draw([scene])
    latents = data.vqvae.vectors(picture).detach()                     # (1, 4, 4, 16)
    values = flow._latents[scene].view(4, 4, 16) * flow.std + flow.mean
    assert torch.allclose(values, latents[0], atol=1e-4)
