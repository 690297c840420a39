"""Rows of one shape, probes with dice's labels, concepts that are found and added (chapter 13)."""
import numpy as np
import pytest
import torch

from mmcourse.experiments.aligned import SLOTS, Rows, _stacked, described, donors, drawn, one_kind
from mmcourse.experiments.concepts import concept_states, mean_difference, retrieval, steered
from mmcourse.experiments.inside import states
from mmcourse.experiments.probes import control_labels, probe
from mmcourse.generate import generate
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Segment, Vocabulary
from mmcourse.world.rules import SPLITS
from mmcourse.world.scene import WORLD


class Bpe:
    """Every word a token."""

    def __init__(self):
        self.ids = {}

    def encode(self, text):
        return [self.ids.setdefault(word, len(self.ids)) for word in text.replace(",", " ,").split()]


class Vqvae:
    """A picture's tokens: what its patches are like."""

    def encode(self, pictures):
        return (torch.nn.functional.adaptive_avg_pool2d(pictures, 8).sum(1) * 20).long()


VOCABULARY = Vocabulary(100, 64, 8, 2)


@pytest.mark.parametrize("sign", [False, True])
def test_every_word_stands_at_its_place(sign):
    bpe, scenes = Bpe(), one_kind(np.random.default_rng(0), 12, "validation", sign)
    assert all(WORLD.split_of(scene) in SPLITS["held-out"] and len(scene.sign) == 3 * sign for scene in scenes)
    rows = described(bpe, Vqvae(), VOCABULARY, scenes)
    word = {i: w for w, i in bpe.ids.items()}
    said = {slot: [word[int(row[place + 1]) - 7] for row in rows.ids] for slot, place in rows.says.items()}
    assert said["ground"] == [scene.background for scene in scenes]
    assert said["place"] == [scene.groups[0].place for scene in scenes]
    assert all(noun.startswith(scene.groups[0].noun[:-1]) for noun, scene in zip(said["noun"], scenes))
    assert [number == "two" for number in said["count"]] == [scene.groups[0].count == 2 for scene in scenes]
    assert not sign or ["".join(x) for x in zip(*(said[f"letter {i}"] for i in (1, 2, 3)))] == [s.sign for s in scenes]
    assert torch.equal(rows.ids[:, rows.picture.start - 1], torch.full((12,), OPEN["image"])) and len(rows.picture) == 64
    other = drawn(bpe, Vqvae(), VOCABULARY, scenes)
    assert torch.equal(other.ids[:, list(other.picture)], rows.ids[:, list(rows.picture)])
    assert torch.equal(other.ids[:, list(other.caption)], rows.ids[:, list(rows.caption)]) and not other.says


def test_what_is_right_is_counted_slot_by_slot():
    rows = described(Bpe(), Vqvae(), VOCABULARY, one_kind(np.random.default_rng(0), 4))
    logits = torch.nn.functional.one_hot(rows.ids.roll(-1, 1), VOCABULARY.size).float()      # foresees everything
    assert rows.shares(logits) == dict.fromkeys(SLOTS, 1.0)
    logits[:2, rows.says["noun"]] = 0.0
    assert rows.shares(logits)["noun"] == 0.5 and rows.shares(logits)["ground"] == 1.0
    with pytest.raises(ValueError, match="all with a sign or none"):
        _stacked([[1, 2], [1]])
    assert isinstance(rows, Rows)


def test_donors_have_as_many_things():
    scenes = one_kind(np.random.default_rng(2), 20)
    order = donors(scenes)
    assert all(i != j and scenes[i].groups[0].count == scenes[j].groups[0].count for i, j in enumerate(order))
    with pytest.raises(ValueError, match="take more scenes"):
        donors(scenes[:1])


def test_a_probe_reads_what_is_there_and_nothing_else():
    dice = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (300,), generator=dice)
    x = torch.randn(300, 8, generator=dice)
    assert probe(x[:200], labels[:200], x[200:], labels[200:]) < 0.5
    x[:, :3] += 6 * torch.nn.functional.one_hot(labels, 3)
    assert probe(x[:200], labels[:200].tolist(), x[200:], labels[200:].tolist()) > 0.95


def test_labels_by_dice_depend_on_the_kind_alone():
    kinds = [("a", 1), ("b", 2), ("a", 1)]
    labels = control_labels(kinds, 5)
    assert labels[0] == labels[2] and control_labels(kinds[::-1], 5) == labels[::-1]
    assert len({tuple(control_labels([("k", i) for i in range(9)], 4, seed)) for seed in range(5)}) == 5


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Transformer(VOCABULARY.size, width=24, layers=2, heads=2, context=120, segment_starts=tuple(OPEN.values())).eval()


def test_a_concept_is_the_mean_of_its_tokens(model):
    segments = [Segment("text", (3, 4)), Segment("text", (5,)), Segment("audio", (1, 2, 3, 4))]
    made = concept_states(model, VOCABULARY, segments)
    row = states(model, torch.tensor([VOCABULARY.pack(segments[:1])]))
    assert made["blocks.1"].shape == (3, 24) and torch.allclose(made["blocks.1"][0], row["blocks.1"][0, 1:3].mean(0))


def test_retrieval_and_direction():
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    assert retrieval(x, 3 * x + 7).all() and retrieval(x, x.roll(1, 0)).sum() == 0
    chosen = torch.arange(9) < 3
    assert torch.allclose(x[~chosen].mean(0) + mean_difference(x, chosen), x[chosen].mean(0), atol=1e-6)


def test_steering_moves_the_prompt_and_not_what_is_drawn(model):
    prompt = torch.tensor([VOCABULARY.pack([Segment("text", (3, 4))])])
    vector = torch.randn(24, generator=torch.Generator().manual_seed(2))
    plain = states(model, prompt)["blocks.0"]
    with steered(model, "blocks.0", vector):
        assert torch.allclose(states(model, prompt)["blocks.0"], plain + vector)
        one = prompt[:, :1]
    with torch.no_grad():
        alone = model(one)
        with steered(model, "blocks.0", vector):
            assert torch.equal(model(one), alone)                       # one token: not a prompt
    asked = [[Segment("text", (3, 4))]]
    with steered(model, "blocks.0", 50 * vector):
        other = generate(model, VOCABULARY, asked, "image", temperature=0.0)
    assert other != generate(model, VOCABULARY, asked, "image", temperature=0.0)
