"""The study of sampling against capacity: its losses, its counting, its intervals."""
import json

import pytest
import torch
from torch import nn

from mmcourse.diffusion import FlowDecoder
from mmcourse.studies import ch07_sampling as study
from mmcourse.vqvae import VQVAE


@pytest.fixture(scope="module")
def small() -> tuple[VQVAE, FlowDecoder]:
    torch.manual_seed(0)
    model = FlowDecoder(code_dim=8, width=16, depth=1, time=16)
    nn.init.normal_(model.leave[-1].weight, std=0.05)                  # as if it had learnt something
    return VQVAE(codebook_size=32, dim=8, width=32).eval(), model.eval()


def test_regression_sees_neither_noise_nor_time():
    data, seen = torch.randn(4, 3, 8, 8), []

    def model(x, t):
        seen.append((x, t))
        return data + 0.5
    assert study.regression_loss(model, data).item() == pytest.approx(0.25)
    assert not seen[0][0].any() and not seen[0][1].any()


def test_a_one_step_teacher_has_nothing_to_teach_itself(small):
    vqvae, model = small
    ids = torch.randint(32, (2, 8, 8))
    told = study.plain_and_codes(vqvae, ids)
    assert study.distil_loss(model, steps=1)(model, told[0], *told).item() == pytest.approx(0, abs=1e-9)
    assert study.distil_loss(model, steps=4)(model, told[0], *told).item() > 1e-5


def test_regression_paints_the_same_picture_each_time(small):
    vqvae, model = small
    ids = torch.randint(32, (2, 8, 8))
    first = study.paint_regression(model, ids, vqvae)
    assert first.shape == (2, 3, 64, 64) and torch.equal(first, study.paint_regression(model, ids, vqvae))


def test_flops_are_those_of_the_layers():
    layer = nn.Conv2d(3, 5, 3, padding=1)
    assert study.flops_of(lambda: layer(torch.zeros(1, 3, 8, 8))) == 2 * 5 * 3 * 9 * 64


def test_the_wide_regression_costs_two_steps_of_the_flow():
    flops = study.count_flops(study.checkpoints.load("vqvae"))
    assert flops["flow"] == flops["regression"]
    assert 1.9 <= flops["wide regression"] / flops["flow"] <= 2.1


def test_intervals_are_student_s():
    mean, half = study.interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.30 / 3**0.5)
    assert study.interval([5.0]) == (5.0, 0.0)


def test_the_recorded_study_is_whole():
    results = json.loads(study.FILE.read_text())
    rows = study.summary(results["rows"])
    for name in ("on the grid", "moved", "generated"):
        mine = {(r["decoder"], r["steps"]): r for r in rows if r["set"] == name}
        assert {("plain", 0), ("flow", 1), ("flow", 2), ("regression", 1), ("shipped", 2)} <= set(mine)
        assert mine["flow", 2]["seeds"] == mine["regression", 1]["seeds"] == 3
