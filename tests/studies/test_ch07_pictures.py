"""Chapter 07's studies of pictures: losses, controls, counting, intervals, what a new checkpoint makes untrue."""
import numpy as np
import pytest
import torch
from torch import nn

from mmcourse import checkpoints
from mmcourse.diffusion import FlowDecoder, decoder_loss, enlarge, plain_and_codes
from mmcourse.judges.metrics import held_out_scenes
from mmcourse.studies import _ch07, ch07_decoder, ch07_decoder128, ch07_long, ch07_sampling
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch


@pytest.fixture(scope="module")
def small() -> tuple[VQVAE, FlowDecoder]:
    torch.manual_seed(0)
    model = FlowDecoder(code_dim=8, width=16, depth=1, time=16)
    nn.init.normal_(model.conv_out[-1].weight, std=0.05)               # as if it had learned something
    return VQVAE(codebook_size=32, dim=8, width=32).eval(), model.eval()


# ---- the control

def test_regression_sees_neither_noise_nor_time():
    truth, plain, seen = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), []

    class Model(nn.Module):
        residual_std = 0.5

        def forward(self, x, t, plain, codes):
            seen.append((x, t))
            return (truth - plain) / self.residual_std + 0.5
    assert _ch07.regression_loss(Model(), truth, plain, None).item() == pytest.approx(0.25)
    assert not seen[0][0].any() and not seen[0][1].any()
    torch.testing.assert_close(_ch07.regress(Model(), plain, None), truth + 0.5 * 0.5)


def test_regression_paints_the_same_picture_each_time(small):
    vqvae, model = small
    ids = torch.randint(32, (2, 8, 8))
    first = ch07_sampling.paint_regression(model, ids, vqvae)
    assert first.shape == (2, 3, 64, 64) and torch.equal(first, ch07_sampling.paint_regression(model, ids, vqvae))


def test_regression_learns_the_mean_and_a_flow_does_not_stop_there(small):
    """Two answers to one question: the control's least loss is at their mean."""
    vqvae, _ = small
    plain, codes = plain_and_codes(vqvae, torch.zeros(2, 8, 8, dtype=torch.long))
    truth = plain + torch.tensor([0.3, -0.1]).view(2, 1, 1, 1)

    class Says(nn.Module):
        residual_std, scale = 1.0, 1

        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x, t, plain, codes):
            return torch.full_like(plain, self.value)
    losses = {value: _ch07.regression_loss(Says(value), truth, plain, codes).item() for value in (-0.1, 0.0, 0.1, 0.2, 0.3)}
    assert min(losses, key=losses.get) == 0.1


def test_a_distance_of_few_is_none():
    a = torch.randn(20, 4)
    assert _ch07.distance(a, a) == pytest.approx(0, abs=1e-6) and _ch07.distance(a[:4], a) is None


# ---- sampling against capacity

def test_a_one_step_teacher_has_nothing_to_teach_itself(small):
    vqvae, model = small
    told = plain_and_codes(vqvae, torch.randint(32, (2, 8, 8)))
    assert ch07_sampling.distil_loss(model, steps=1)(model, told[0], *told).item() == pytest.approx(0, abs=1e-9)
    assert ch07_sampling.distil_loss(model, steps=4)(model, told[0], *told).item() > 1e-5


def test_the_wide_regression_costs_two_steps_of_the_flow():
    flops = ch07_sampling.flops()
    assert flops["flow"] == flops["regression"]
    assert 1.9 <= flops["wide regression"] / flops["flow"] <= 2.1


def test_every_arm_has_a_loss_and_a_width():
    assert set(ch07_sampling.LOSSES) == set(ch07_sampling.WIDTHS) == set(ch07_sampling.Plan().arms)
    assert ch07_sampling.LOSSES["flow"] is decoder_loss


def test_the_summary_is_over_training_seeds():
    def row(seed, fd, signs=0.5):
        return {"set": "moved", "decoder": "flow", "steps": 2, "seed": seed, "fd": fd, "psnr": 20.0, "nouns": 1.0, "signs": signs,
                "sharpness": 1.0}
    one, = ch07_sampling.summary([row(s, fd) for s, fd in enumerate((1.0, 2.0, 3.0))])
    assert one["seeds"] == 3 and one["fd"] == (pytest.approx(2.0), pytest.approx(4.3027 / 3**0.5, rel=1e-4))
    assert one["psnr"] == (20.0, 0.0)
    alone, = ch07_sampling.summary([row(None, 5.0, signs=None)])
    assert alone["fd"] == (5.0, 0.0) and "signs" not in alone           # OCR was not installed


def test_pictures_are_measured_against_their_own_scenes():
    scenes, vqvae = held_out_scenes(6, 0), checkpoints.load("vqvae")
    metrics = ch07_sampling.PictureMetrics(scenes, vqvae.encode(draw_batch(scenes)), vqvae)
    true, mixed = metrics.read(metrics.truth), metrics.read(metrics.truth.roll(1, 0))
    assert true["psnr"] == pytest.approx(100) and true["nouns"] == 1 and true["sharpness"] == 1
    assert mixed["psnr"] < 20 and mixed["nouns"] < 1 and mixed["sharpness"] == 1
    timed = metrics.flow(FlowDecoder(code_dim=16, width=16, depth=1, time=16).eval(), 1)
    assert timed["ms"] > 0 and timed["psnr"] == pytest.approx(metrics.plain()["psnr"], abs=1e-3)     # untrained: the plain one


def test_a_new_transformer_makes_the_rows_on_its_tokens_untrue_and_no_others():
    plan = ch07_sampling.Plan()
    head = ch07_sampling.head(plan)
    result = {**head, "made_with": {**head["made_with"], "transformer": "old"},
              "rows": [{"set": name} for name in ch07_sampling.RESTS_ON]}
    ch07_sampling.outdated(result, head)
    assert [row["set"] for row in result["rows"]] == ["on the grid", "moved"] and result["made_with"] == head["made_with"]
    result = {**head, "made_with": {**head["made_with"], "vqvae": "old"}, "rows": [{"set": "moved"}]}
    ch07_sampling.outdated(result, head)
    assert result["rows"] == []
    result = {**head, "budget": {"steps": 1}, "rows": [{"set": "moved"}]}
    ch07_sampling.outdated(result, head)
    assert result["rows"] and result["budget"] == {"steps": 1}         # not comparable: the runner refuses it as a whole


def test_a_new_transformer_and_the_table_of_steps():
    head = ch07_decoder.head(ch07_decoder.Plan())
    result = {"made_with": {**head["made_with"], "transformer": "old"}, "steps": [1], "generated": [2]}
    ch07_decoder.outdated(result, head)
    assert result == {**head, "steps": [1]}
    result = {"made_with": {**head["made_with"], "decoder": "old"}, "steps": [1], "generated": [2]}
    ch07_decoder.outdated(result, head)
    assert result["made_with"]["decoder"] == "old" and result["generated"] == [2]


def test_tokens_of_the_transformer_are_kept_for_each_number_and_seed(monkeypatch, tmp_path):
    import mmcourse.assistant
    asked = []

    class Writes:
        def tokens(self, prompt, want, seed, best_of):
            asked.append((want, seed, best_of))
            return type("Segment", (), {"ids": (seed,) * 64})()
    monkeypatch.setattr(mmcourse.assistant, "load", Writes)
    monkeypatch.setattr(_ch07, "cache_dir", lambda: tmp_path)
    first = _ch07.written_tokens(2, seed=5)
    assert first.shape == (2, 8, 8) and first[1, 0, 0] == 6 and asked == [("image", 5, 1), ("image", 6, 1)]
    assert torch.equal(first, _ch07.written_tokens(2, seed=5)) and len(asked) == 2
    _ch07.written_tokens(2, seed=7)
    _ch07.written_tokens(1, seed=5)
    assert len(asked) == 5


# ---- equal long training

def test_an_interval_counts_trainings_and_scenes():
    rng = np.random.default_rng(0)
    draws = rng.normal(0, 1, (3, 2000))
    alone = ch07_long.spread([5.0], draws[:1])
    assert alone[0] == 5 and alone[1] == pytest.approx(1.96, rel=0.1)          # scenes alone
    assert ch07_long.spread([1.0, 2.0, 3.0], np.zeros((3, 10)))[1] == pytest.approx(4.3027 / 3**0.5, rel=1e-3)     # trainings alone
    both = ch07_long.spread([1.0, 2.0, 3.0], draws)
    assert both[0] == 2 and both[1] > 4.3027 / 3**0.5


def test_decoders_are_compared_on_the_same_scenes():
    """A difference that is the same on every scene has no width, however much the scenes differ."""
    many = np.random.default_rng(1).normal(0, 1, 50)
    first, second = {"fd": (2.0, 4 + many), "psnr": (0.0, many)}, {"fd": (1.0, 3 + many), "psnr": (1.0, many + 1)}
    found = ch07_long.contrast([first], [second])
    assert found["fd"] == [1.0, 0.0] and found["psnr"] == [-1.0, 0.0] and found["ratio"][0] == 2
    assert ch07_long.contrast([first] * 3, [second])["fd"] == [1.0, 0.0]       # three trainings against one decoder


def test_psnr_is_pooled():
    assert ch07_long.psnr(np.array([0.1, 0.1])) == pytest.approx(10)
    assert ch07_long.psnr(np.array([[0.01, 0.19], [0.1, 0.1]])) == pytest.approx([10, 10])


def test_a_decoder_of_the_truth_is_perfect_and_a_flow_starts_from_its_own_noise(monkeypatch, small):
    vqvae, model = small
    plan = ch07_long.Plan(n=5, draws=3)
    scenes = ch07_long.Scenes(plan, "on the grid")
    read = scenes.read(scenes.truth)
    assert read["nouns"].all() and read["exact"].all() and read["errors"].max() == 0 and read["edges"] == 1 and read["grain"] == 0
    assert "exact" not in ch07_long.Scenes(ch07_long.Plan(n=3, draws=2), "moved").read(
        ch07_long.Scenes(ch07_long.Plan(n=3, draws=2), "moved").truth)
    ids = torch.randint(32, (2, 8, 8))
    told = plain_and_codes(vqvae, ids)
    torch.testing.assert_close(ch07_long.flow_pictures(model, *told, 2, 7), model.decode(ids, vqvae, 2, 7))


# ---- 128x128

def test_detail_is_what_a_small_picture_cannot_hold():
    large = draw_batch(held_out_scenes(2, 0), 128)
    assert ch07_decoder128.shrink(large).shape == (2, 3, 64, 64)
    blurred = enlarge(ch07_decoder128.shrink(large), 2)
    assert ch07_decoder128.detail(large) > 3 * ch07_decoder128.detail(blurred) > 0
    assert ch07_decoder128.detail(torch.full((1, 3, 128, 128), 0.5)) == pytest.approx(0, abs=1e-10)
