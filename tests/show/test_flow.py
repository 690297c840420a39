"""Chapter 07's figures and verdicts: computed from what was measured, undecided where the interval says so."""
import pytest
import torch
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.diffusion import FlowDecoder, euler
from mmcourse.exercises.ch07 import posterior_mean
from mmcourse.files import results


@pytest.mark.parametrize(("pair", "bounds", "said"), [
    ((0.3, 0.1), {"high": 0.5}, "holds"), ((0.45, 0.1), {"high": 0.5}, "undecided"), ((0.7, 0.1), {"high": 0.5}, "FAILS"),
    ((-1.0, 0.5), {"low": -3.1, "high": 0}, "holds"), ((-1.0, 1.5), {"low": -3.1, "high": 0}, "undecided"),
    ((-5.0, 0.5), {"low": -3.1, "high": 0}, "FAILS"), ((0.0, 0.0), {"low": -0.01}, "holds")])
def test_a_verdict_is_undecided_where_its_interval_is_on_both_sides(pair, bounds, said):
    assert show.flow.decide(pair, **bounds) == said


def test_an_interval_is_written_once():
    assert show.flow.pm((0.25, 0.013), ".2f") == "0.25 ± 0.01" and show.flow.pm([1.5, 0.0], "+.1f") == "+1.5"
    assert show.flow.pm((-1.0, 0.5), "+.1f") == "-1.0 ± 0.5"


def test_the_verdicts_follow_the_table():
    def found(fd, ratio, psnr, nouns):
        return {"fd": fd, "ratio": ratio, "psnr": psnr, "nouns": nouns}
    good = {"shipped, 8 steps - plain": found((-0.1, 0.01), (0.3, 0.05), (-1, 0.1), (0, 0.005))}
    assert [verdict for _, verdict, _ in show.flow.decoder_verdicts(good)] == ["holds"] * 3
    bad = {"shipped, 8 steps - plain": found((-0.1, 0.01), (0.7, 0.05), (1, 0.1), (-0.04, 0.01))}
    assert [verdict for _, verdict, _ in show.flow.decoder_verdicts(bad)] == ["FAILS"] * 3


def test_the_chapters_result_regression_of_the_same_size_wins():
    """What the text of section 9 says of the committed table."""
    sets = results("ch07_long")["sets"]
    for world, found in sets.items():
        verdicts = {name: verdict for name, verdict, _ in show.flow.sampling_verdicts(found["contrasts"])}
        assert verdicts["H4"] == verdicts["H4, same size"] == verdicts["1 step is regression"] == "FAILS", world
        flows = [row["fd"][0] for name, row in found["rows"].items() if name.startswith(("flow", "shipped"))]
        assert found["rows"]["regression"]["fd"][0] < min(flows), world
        assert all(row["psnr"][0] < found["rows"]["regression"]["psnr"][0] - 0.6
                   for name, row in found["rows"].items() if name.startswith("flow")), world
    rows = sets["moved"]["rows"]
    assert abs(rows["regression"]["edges"] - rows["flow, 8 steps"]["edges"]) < 0.01
    assert rows["regression"]["grain"] < rows["flow, 8 steps"]["grain"]


def test_briefly_trained_one_step_is_not_regression():
    sound = results("ch07_sound")
    short = sound["seeds"]["rows"]["synthetic"]
    verdicts = {name: verdict for name, verdict, _ in
                show.flow.sound_verdicts(sound["sets"]["synthetic"], sound["chosen"], "flow, 8 steps, draw 0", short)}
    assert verdicts == {"S1": "holds", "S2": "holds", "S3, trained long": "holds", "S3, trained briefly": "FAILS", "S4": "FAILS"}


def test_figures_can_be_drawn(drawn):
    data = torch.randn(20, 2)
    states = euler(lambda x, t: (posterior_mean(x, t, data) - x) / (1 - t), torch.randn(30, 2), 4)
    show.flow.arrows(lambda x, t: -x, 0.5, states, data, "one")
    show.flow.arrows(lambda x, t: -x, (0.3, 0.8), states, data, "two")
    line = torch.tensor([[-1.0], [1.5], [1.5]])
    show.flow.roads(euler(lambda x, t: (posterior_mean(x, t, line) - x) / (1 - t), torch.randn(400, 1), 30),
                    {-1.0: 1 / 3, 1.5: 2 / 3}, "roads")
    show.flow.prices(results("ch07_long")["sets"], results("ch07_sampling")["flops"], "prices")
    assert [len(figure.axes) for figure, _ in drawn] == [1, 2, 2, 2]
    shares = [bar.get_width() for bar in drawn[2][0].axes[1].patches]
    assert shares[1] == pytest.approx(1 / 3, abs=0.08) and shares[1] + shares[3] == pytest.approx(1)


def test_the_drawing_of_the_unet_is_the_network(monkeypatch, capsys):
    model, kept = FlowDecoder(), []
    monkeypatch.setattr(plt, "close", kept.append)
    show.diagrams.ch07.unet()
    said = [text.get_text() for axis in kept[0].axes for text in axis.texts]
    assert f"block × {len(model.down)}\n64 wide" in said and f"block × {len(model.middle)}\n128 wide" in said
    assert model.conv_in.in_channels == 96 and any("96 → 64" in text for text in said)
    assert model.skip.in_channels == 128 and any("128 → 64" in text for text in said)
    assert "seven blocks" in capsys.readouterr().out and len(model.down) + len(model.middle) + len(model.up) == 7


def test_the_diffusion_decoder_paints_pictures_and_sound_goes_past_it(capsys):
    show.diagrams.ch07.pipe()
    assert "Sound tokens go through the codec's decoder alone" in capsys.readouterr().out
