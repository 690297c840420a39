"""The comparison of one net with specialists is as fair as it says."""
import numpy as np
import pytest
import torch
from helpers import Letters

from mmcourse.dataset import Clips, Mixture
from mmcourse.studies._ch06 import TASKS, WHOLE, SmallWorld
from mmcourse.studies.ch06_specialists import THIRD
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import Vocabulary
from mmcourse.world.scene import sample_scene


def test_a_third_is_a_third():
    whole, third = (sum(p.numel() for p in Transformer(20, **size).blocks.parameters()) for size in (WHOLE, THIRD))
    assert third / whole == pytest.approx(1 / 3, abs=0.005)


def test_a_specialist_sees_what_the_one_net_sees_of_its_task():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, "train") for _ in range(5)]
    clips = Clips([np.arange(6) + i for i in range(4)], ["cat", "key", "bee", "tree"])
    mixture = Mixture(Vocabulary(100, 64, 64, 2), Letters(), scenes, rng.integers(64, size=(5, 64)), clips, {})
    world = SmallWorld(mixture, mixture)
    for step in range(3):
        together = world.batch(np.random.default_rng((0, step)), list(TASKS))
        apart = [part for task in TASKS for part in world.batch(np.random.default_rng((0, step)), [task])]
        assert len(together) == 2 * len(TASKS) == len(apart)
        assert all(torch.equal(a, b) for a, b in zip(together, apart))
