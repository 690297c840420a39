"""What chapter 05's study counts: held-out pairs in captions, and what a held-out ground costs."""
import numpy as np
import torch
from torch import nn

from mmcourse.studies.ch05_exclusion import STUDY, Texts, ground_costs, holds_pair, scenes_of, unfinished
from mmcourse.world.scene import NOUNS, WORLD, caption, held_out_pair, parse_caption, sample_scene

DATA = Texts(STUDY.toy)


class Knows(nn.Module):
    """A predictor of what follows that gives a held-out ground e to the power of -`cost` of its chance, and
    knows no more."""

    def __init__(self, cost: float):
        super().__init__()
        self.cost = cost
        self.ids = {DATA.pack(f"red {name} ground")[2]: name for name in WORLD.backgrounds}

    def forward(self, ids):
        text = DATA.bpe.decode([i - 7 for i in ids[0].tolist() if i >= 7])
        noun = next(n for n in NOUNS if f" {n} " in text or WORLD.grammar.plural(n) in text.replace(",", "").split())
        logits = torch.zeros(1, ids.shape[1], DATA.vocabulary.size)
        for i, name in self.ids.items():
            logits[0, -1, i] = 5 - self.cost * held_out_pair(noun, name)
        return logits


def test_what_a_held_out_ground_costs_is_found():
    blind, knowing = (ground_costs(Knows(cost), DATA) for cost in (0.0, 1.5))
    assert len(blind) == sum(any(held_out_pair(noun, name) for name in WORLD.backgrounds) for noun in NOUNS)
    assert np.abs(blind).max() < 1e-5 and np.abs(knowing - 1.5).max() < 1e-4


def test_after_an_unfinished_caption_a_ground_is_a_caption():
    for noun in NOUNS:
        for start in unfinished(noun):
            assert parse_caption(f"{start} red ground").groups[0].noun == noun


def test_pairs_are_counted_by_caption():
    rng = np.random.default_rng(0)
    training = [caption(sample_scene(rng)) for _ in range(200)]
    without_the_rule = [caption(sample_scene(rng, "any")) for _ in range(2000)]
    assert not any(map(holds_pair, scenes_of(training)))
    assert 0.12 < np.mean([holds_pair(scene) for scene in scenes_of(without_the_rule)]) < 0.18
    assert scenes_of(["a cats on the left", *training[:2]]) == [parse_caption(line) for line in training[:2]]
