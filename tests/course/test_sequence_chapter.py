"""Chapter 06: its drawings, and that the comparison of one net with specialists is as fair as it says."""
import json

import numpy as np
import pytest
import torch

from mmcourse import show
from mmcourse.dataset import Clips, Mixture, mixture_loss
from mmcourse.paths import RESULTS
from mmcourse.recipes.transformer import make_model
from mmcourse.studies import ch06_ablations as ablations
from mmcourse.studies import ch06_specialists as specialists
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Vocabulary
from mmcourse.world.scene import sample_scene


def test_reliability_counts_in_bins():
    rows = show.sequence.reliability([0.1, 0.15, 0.9, 1.0], [False, True, True, True], bins=5)
    assert [(r["from"], r["n"], r["right"]) for r in rows] == [(0.0, 2, 0.5), (0.8, 2, 1.0)]
    assert rows[0]["confidence"] == pytest.approx(0.125)


@pytest.mark.parametrize(("confidence", "correct"), [([], []), ([0.5], [True, False]), ([-3.0], [True]), ([1.5], [False])])
def test_reliability_refuses(confidence, correct):
    with pytest.raises(ValueError, match="confidence"):
        show.sequence.reliability(confidence, correct)


def test_specialists_are_drawn_direction_by_direction(capsys):
    rows = [{"seed": s, "net": net, "direction": d, "bits": b + s, "right": None if d == "text->audio" else 0.5, "parameters": 9,
             "cpu_minutes": 0.1} for s in (0, 1) for net, b in (("one net", 2.0), ("specialist, a third", 3.0))
            for d in ("text->image", "text->audio")]
    found = show.sequence.specialists(rows)
    assert found["text->image"] == {"one net": [2.0, 3.0], "specialist, a third": [3.0, 4.0]}
    said = capsys.readouterr().out
    assert "right, text → image" in said and "right, text → audio" not in said


def test_a_third_is_a_third():
    whole, third = (sum(p.numel() for p in Transformer(20, **size).blocks.parameters()) for size in (specialists.WHOLE, specialists.THIRD))
    assert third / whole == pytest.approx(1 / 3, abs=0.005)


def test_a_specialist_sees_what_the_one_net_sees_of_its_task():
    class Letters:
        def encode(self, text):
            return [ord(c) % 100 for c in text]

    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, "train") for _ in range(5)]
    world = object.__new__(specialists.World)
    clips = Clips([np.arange(6) + i for i in range(4)], ["cat", "key", "bee", "tree"])
    images = rng.integers(64, size=(5, 64))
    world.mixtures = {False: Mixture(Vocabulary(100, 64, 64, 2), Letters(), scenes, images, clips, {})}
    for step in range(3):
        together = world.batch(np.random.default_rng((0, step)), list(specialists.TASKS))
        apart = [part for task in specialists.TASKS for part in world.batch(np.random.default_rng((0, step)), [task])]
        assert len(together) == 2 * len(specialists.TASKS) == len(apart)
        assert all(torch.equal(a, b) for a, b in zip(together, apart))


@pytest.mark.skipif(not (RESULTS / "ch06_specialists.json").exists(), reason="nobody has run the comparison yet")
def test_the_shipped_comparison_is_complete():
    rows = json.loads((RESULTS / "ch06_specialists.json").read_text(encoding="utf-8"))["rows"]
    nets, directions = {r["net"] for r in rows}, {d for task in specialists.TASKS.values() for d in task}
    for seed in {r["seed"] for r in rows}:
        assert {(r["net"], r["direction"]) for r in rows if r["seed"] == seed} == {(n, d) for n in nets for d in directions}


def test_the_tax_is_taken_seed_by_seed(capsys):
    rows = show.sequence.tax({"text->image": {"one net": [2.0, 3.0, 4.0], "specialist": [1.0, 2.1, 2.9], "small": [2.1, 2.8, 4.1]}})
    assert [r["verdict"] for r in rows] == ["specialist is better", "no clear difference"]
    assert rows[0]["paid (bits a token)"] == pytest.approx(1.0) and rows[0]["standard error"] == pytest.approx(0.1 / 3**0.5)


def test_edits_are_shown_in_threes():
    pictures = torch.rand(2, 3, 8, 8)
    show.sequence.edits(["a", "b"], pictures, pictures, pictures, [{"change": True, "kept": False}] * 2)
    with pytest.raises(ValueError):
        show.sequence.edits(["a"], pictures, pictures, pictures, [])


def test_the_composition_table_reads_the_shipped_file(capsys):
    show.sequence.composition(json.loads((RESULTS / "ch06_composition.json").read_text()))
    assert "held-out pairs" in capsys.readouterr().out


def test_ablations_are_compared_seed_by_seed(capsys):
    def rows(arm, *bits):
        return [{"arm": arm, "seed": s, "bits": b and {"text->image": b}, "parameters": 9, "cpu_minutes": 0.5} for s, b in enumerate(bits)]
    found = ablations.summary(rows("as it is", 2.0, 3.0, 4.0) + rows("wider", 1.5, 2.4, 3.45) + rows("other", 2.2, 2.8, 4.0)
                              + rows("wild", 2.0, None, 3.0))
    means = [row["bits"]["text->image"] and row["bits"]["text->image"][0] for row in found]
    assert means[:3] == [pytest.approx(3.0), pytest.approx(-0.55), pytest.approx(0.0)] and means[3] is None
    show.sequence.ablations(found)
    said = capsys.readouterr().out
    assert "-0.550*" in said and "0.000 " in said and "0.000*" not in said and "diverged" in said


def test_an_arm_changes_what_it_says():
    vocabulary, ids = Vocabulary(100, 64, 64, 2), torch.randint(7, 200, (2, 12))
    ids[:, 0] = ids[:, 6] = OPEN["text"]

    def answer(change=None, **size):
        model = make_model(vocabulary, 0, **{**ablations.WHOLE, **size})
        if change:
            change(model)
        return model(ids)
    base = answer()
    for name, arm in ablations.ARMS.items():
        assert torch.equal(answer(arm.change, **arm.size), base) == (arm.change is None and not arm.size), name
    weights = torch.rand(2, 12)
    model = make_model(vocabulary, 0)
    same = ablations.all_tokens_loss(model, ids, weights)["loss"]
    assert same.item() == pytest.approx(mixture_loss(model, ids, torch.ones(2, 12))["loss"].item())
    assert same.item() != pytest.approx(mixture_loss(model, ids, weights)["loss"].item(), rel=1e-6)


def test_normed_queries_and_keys_have_one_length_and_values_are_left_alone():
    linear, x = torch.nn.Linear(8, 24, bias=False), torch.randn(2, 5, 8)
    plain, normed = linear(x).unflatten(-1, (3, 2, 4)), ablations.NormedQueriesAndKeys(linear, 2)(x).unflatten(-1, (3, 2, 4))
    assert torch.equal(plain[..., 2, :, :], normed[..., 2, :, :])
    assert torch.allclose(normed[..., :2, :, :].square().mean(-1), torch.ones(()), atol=1e-2)
    assert torch.allclose(normed[..., 0, :, :], torch.nn.functional.layer_norm(plain[..., 0, :, :], (4,)))


def test_the_shipped_ablations_are_complete():
    rows = json.loads((RESULTS / "ch06_ablations.json").read_text(encoding="utf-8"))["rows"]
    assert [(r["arm"], r["seed"]) for r in rows] == [(arm, seed) for arm in ablations.ARMS for seed in range(ablations.SEEDS)]


def test_an_ablation_that_is_in_the_file_is_not_run_again(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(ablations, "run", lambda name, seed, steps: done.append((name, seed)) or {"arm": name, "seed": seed, "bits": None})
    arms, file = list(ablations.ARMS)[:2], tmp_path / "ch06_ablations.json"
    ablations.main(["--arms", arms[1], "--seeds", "0"], file)
    found = ablations.main(["--arms", *arms, "--seeds", "0", "1"], file)
    assert done == [(arms[1], 0), (arms[0], 0), (arms[0], 1), (arms[1], 1)]
    assert json.loads(file.read_text())["rows"] == sorted(found["rows"], key=lambda r: (arms.index(r["arm"]), r["seed"]))
