"""Chapter 14's study: what is foretold is foretold from small nets alone and before the large ones, rates lie on a line."""
from dataclasses import replace

import numpy as np
import pytest

from mmcourse.experiments.scaling import COUNTS, Law
from mmcourse.studies import ch14_law
from mmcourse.studies.ch14_law import FITTED, PLAN, TOY
from mmcourse.world.scene import caption, sample_scene

LAWS = {role: Law(0.1 + 0.2 * i, 40.0, 0.4, 900.0, 0.5) for i, role in enumerate(FITTED)}
SIZES = {8: 2e3, 16: 8e3, 24: 2e4, 32: 3e4}


def some_runs(plan) -> dict:
    """Runs whose losses follow a law exactly; the three counts are the same here."""
    rows = [{"width": width, "seed": 0, "steps": steps, **dict.fromkeys(COUNTS, SIZES[width]), "tokens": 1000.0 * steps,
             "bits": {role: float(law(SIZES[width], 1000.0 * steps)) for role, law in LAWS.items()}}
            for width in plan.widths for steps in plan.budgets]
    return {"runs": rows}


def test_the_large_nets_are_trained_after_they_were_foretold():
    names = [job.name for job in ch14_law.jobs(PLAN, ())]
    at = names.index("predictions")
    assert {f"width {width}, seed 0" for width in PLAN.large} < set(names[at:])
    assert all(f"width {width}, seed {seed}" in names[:at] for width, n in zip(PLAN.widths, PLAN.seeds)
               if width not in PLAN.large for seed in range(n))
    assert names[-1] == "laws" and len(set(names)) == len(names)


def test_what_is_foretold_knows_nothing_of_large_nets(monkeypatch):
    plan = replace(TOY, budgets=(50, 100, 200, 400))
    monkeypatch.setattr(ch14_law, "FITTED", FITTED[:2])
    monkeypatch.setattr(ch14_law, "reference_tokens", lambda plan: 5e6)
    monkeypatch.setattr(ch14_law, "parameters", lambda model: dict.fromkeys(COUNTS, SIZES[model.width]))
    result = some_runs(plan)
    found = ch14_law.predict(plan, result)
    for row in result["runs"]:
        if row["width"] in plan.large:
            row["bits"] = dict.fromkeys(row["bits"], 99.0)
    assert ch14_law.predict(plan, result) == found
    law = LAWS["text"]
    assert found["32"]["hidden"]["text"]["bits"] == pytest.approx(law(SIZES[32], 400_000.0), rel=1e-2)
    assert found["reference"]["all"]["text"]["bits"] == pytest.approx(law(SIZES[32], 5e6), rel=2e-2)


def test_points_are_of_some_widths():
    N, D, L = ch14_law.points(some_runs(TOY), "all", "hidden", (8, 32))
    assert set(N) == {SIZES[8], SIZES[32]} and len(N) == len(D) == len(L) == 2 * len(TOY.budgets)


def test_rates_lie_on_a_line():
    result = {"rates": {"8": {"hidden": 1e3, "best": 4.0}, "16": {"hidden": 1e5, "best": 2.0}, "24": {"hidden": 1e7, "best": 1.0}}}
    assert ch14_law.factor_for(1e4, result) == pytest.approx(8**0.5) and ch14_law.factor_for(1e7, result) == pytest.approx(1.0)


def test_a_twin_differs_in_what_its_caption_says():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(20)]
    assert all(caption(ch14_law.twin(scene, rng)) != caption(scene) for scene in scenes)


@pytest.mark.slow
def test_the_reference_read_some_sixty_million_tokens():
    assert 5e7 < ch14_law.reference_tokens(TOY) < 8e7
