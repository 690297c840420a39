"""Chapter 14's law: the fit finds planted constants, a branch is a run of its own, no scene comes twice, the truth is the truth."""
import numpy as np
import pytest
import torch
from helpers import Letters

from mmcourse.dataset import mixture_loss
from mmcourse.experiments.fresh_pairs import NAMES, ROLES, ROWS, Pairs, bits_by_role, in_parts, true_bits
from mmcourse.experiments.scaling import (
    Law,
    best_rate,
    branches,
    family,
    fit_law,
    interval,
    parameters,
    resampled_laws,
    wsd,
)
from mmcourse.optim import Optim, make_optimizers, set_rates
from mmcourse.training import step
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Vocabulary
from mmcourse.world.scene import caption, sample_scene, scene_bits

TRUE = Law(E=1.2, A=30.0, a=0.35, B=400.0, b=0.45)
GRID = [np.array(x, float) for x in zip(*[(n, d) for n in (3e4, 1e5, 3e5, 8e5, 1.5e6, 2.6e6) for d in (2e5, 5e5, 1e6, 2e6)])]
WIDE = Vocabulary(text=100, image=6, audio=4, audio_levels=2, image_tokens=5)


def some_pairs(n: int = 60, seed: int = 0) -> Pairs:
    rng = np.random.default_rng(seed)
    clips = [(rng.integers(0, 4, size=2 * int(rng.integers(1, 4))), word) for word in ("cat", "sun", "dog", "sun")]
    return Pairs(WIDE, Letters(), [sample_scene(rng) for _ in range(n)], rng.integers(0, 6, size=(n, 5)), clips, seed)


def tiny() -> Transformer:
    torch.manual_seed(0)
    return Transformer(WIDE.size, width=8, layers=1, heads=1, context=150, segment_starts=tuple(OPEN.values()))


def test_the_fit_finds_planted_constants():
    found = fit_law(*GRID, TRUE(*GRID))
    assert [found.E, found.a, found.b] == pytest.approx([TRUE.E, TRUE.a, TRUE.b], rel=1e-3)
    assert [found.A, found.B] == pytest.approx([TRUE.A, TRUE.B], rel=1e-2)
    assert found.share == pytest.approx(0.45 / 0.8, rel=1e-3)


def test_one_bad_run_does_not_move_the_law():
    losses = TRUE(*GRID)
    losses[7] *= 1.5
    assert fit_law(*GRID, losses).E == pytest.approx(TRUE.E, rel=0.02)


def test_a_floor_of_zero_is_found():
    law = Law(0.0, TRUE.A, TRUE.a, TRUE.B, TRUE.b)
    assert fit_law(*GRID, law(*GRID)).E < 0.02


def test_the_interval_covers_the_truth_most_of_the_time():
    covered = 0
    for seed in range(8):
        noisy = TRUE(*GRID) * np.exp(np.random.default_rng(seed).normal(0, 0.005, len(GRID[0])))
        laws = resampled_laws(*GRID, noisy, fit_law(*GRID, noisy), times=30, seed=seed)
        low, high = interval([law.b for law in laws])
        covered += low <= TRUE.b <= high
    assert covered >= 5


@pytest.mark.parametrize("N, D, L", [([1e5] * 5, [1e6] * 5, [2.0] * 5), ([1e5] * 6, [1e6] * 6, [2.0] * 5 + [0.0])])
def test_too_little_to_fit(N, D, L):
    with pytest.raises(ValueError, match="six runs"):
        fit_law(N, D, L)


def test_the_lowest_point_of_a_parabola():
    factors = [0.5, 1, 2, 4]
    assert best_rate(factors, [(np.log(f) - np.log(1.5)) ** 2 for f in factors]) == pytest.approx(1.5)
    assert best_rate(factors, [1, 2, 3, 4]) == 0.5


def test_three_counts():
    model = family(Vocabulary(1024), 64)
    assert len(model.blocks) == 2 and model.heads == 2
    found = parameters(model)
    assert found["all"] == sum(p.numel() for p in model.parameters())
    assert found["with head"] - found["hidden"] == model.head.weight.numel()
    assert found["hidden"] == 12 * 2 * 64**2 + (2 * 2 + 1) * 2 * 64            # matrices, and gains and biases of the norms


def test_the_rate_rises_stays_and_falls():
    rates = [wsd(i, 50, warmup=5) for i in range(50)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and set(rates[5:40]) == {1.0}
    assert all(a > b > 0 for a, b in zip(rates[39:], rates[40:]))


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_branch_is_a_run_of_its_own(name):
    pairs, optim = some_pairs(), Optim(name, warmup=2)
    found = dict(branches(tiny(), pairs.batch, mixture_loss, (3, 6), optim, decay=0.4))
    for steps, net in found.items():
        alone = tiny()
        optimizers = make_optimizers(alone, optim)
        for now in range(steps):
            set_rates(optimizers, wsd(now, steps, 2, 0.4))
            step(alone, optimizers, pairs.batch(now), mixture_loss, optim.clip)
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), alone.parameters()))


def test_no_scene_comes_twice_and_clips_come_in_turn():
    pairs = some_pairs()
    numbers = [number for now in range(6) for number in pairs.numbers(now)]
    scenes = [i for order, i in numbers if "image" in order]
    assert sorted(scenes) == list(range(60)) and {order for order, _ in numbers} == set(ROWS)
    assert all([order for order, _ in pairs.numbers(3)].count(order) == n for order, n in ROWS.items())
    heard = [pairs.pair("audio->text", i)[0].ids for i in range(8)]
    assert sorted(heard[:4]) == sorted(heard[4:]) == sorted(tuple(tokens.tolist()) for tokens, _ in pairs.clips)
    with pytest.raises(ValueError, match="60 scenes"):
        pairs.batch(6)


def test_each_token_has_its_role():
    pairs = some_pairs()
    for order, roles in ROLES.items():
        first, second = pairs.pair(order, 1)
        ids, kinds = pairs.row(order, 1)
        assert [0 if k == 0 else NAMES[k - 1] for k in kinds] == (
            [0] + [roles[0]] * (len(first.ids) + 1) + [0] + [roles[1]] * (len(second.ids) + 1))
        assert ids == WIDE.pack([first, second])
    assert pairs.tokens(0) == sum(float(weights.sum()) for weights in pairs.batch(0)[1::2])


def test_bits_are_those_of_each_row():
    pairs, model = some_pairs(), tiny().eval()
    found = bits_by_role(model, pairs, 3)
    ids, roles = (tensor[0] for tensor in in_parts([pairs.row("image->text", 2)])[0])
    alone = bits_by_role(model, Pairs(WIDE, Letters(), pairs.scenes[2:3], pairs.pictures[2:3], pairs.clips), 1)
    logits = model(ids[None, :-1])[0].detach().log_softmax(-1)
    bits = -logits.gather(1, ids[1:, None])[:, 0] / np.log(2)
    assert alone["image"] == pytest.approx(float(bits[roles[1:] == 1 + NAMES.index("image")].mean()), rel=1e-5)
    assert found["all"] == pytest.approx(np.log2(WIDE.size), rel=0.02) and set(found) == {"all", *NAMES}


def test_true_bits_are_those_of_the_scenes():
    pairs = some_pairs()
    known = true_bits(pairs, 10)
    bits = sum(scene_bits(scene) for scene in pairs.scenes[:10])
    assert known["image"] * 10 * 6 == pytest.approx(bits)
    letters = sum(len(" " + caption(scene)) + 1 for scene in pairs.scenes[:10])
    assert known["text"] * letters == pytest.approx(bits + 10 * np.log2(8 / 5))
    assert known["image | text"] == known["text | image"] == 0 and "audio" not in known
