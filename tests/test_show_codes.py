"""Codebooks to look at: the numbers are right, and every figure can be drawn."""
import json
import math

import numpy as np
import pytest
import torch

from mmcourse import show, show_codes
from mmcourse.paths import RESULTS
from mmcourse.recipes import vq_sweep
from mmcourse.vqvae import VQVAE


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return VQVAE(codes=64, dim=8, width=32).eval()


@pytest.fixture
def drawn(monkeypatch):
    """What was shown: the figures' captions, and the figures still open."""
    seen = []
    monkeypatch.setattr(show, "figure", lambda fig, text="", **_: (seen.append((fig, text)), fig.canvas.draw()))
    return seen


def test_health_by_hand():
    found = show_codes.health(torch.tensor([[[0, 0], [5, 7]]]), 16)
    assert found["used"] == 3 and found["perplexity"] == pytest.approx(2 ** 1.5) and found["bits"] == pytest.approx(1.5)
    assert found["nominal_bits"] == 4 and found["commonest"] == 0.5
    assert show_codes.health(np.arange(8), 8)["perplexity"] == pytest.approx(8)
    assert show_codes.counts(torch.zeros(2, 3, 4, dtype=torch.long), 5).tolist() == [24, 0, 0, 0, 0]


@pytest.mark.parametrize("ids, says", [([], "empty"), ([0, 16], r"0\.\.15"), ([-1], r"0\.\.15")])
def test_health_of_what_is_no_codebook(ids, says):
    with pytest.raises(ValueError, match=says):
        show_codes.health(ids, 16)


def test_usage_marks_the_living(drawn):
    show_codes.usage({"alive": [5, 5, 5, 5], "dead": torch.tensor([20, 0, 0, 0])}, "a caption")
    (figure, caption), = drawn
    labels = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert labels == ["alive: 4 alive, perplexity 4", "dead: 1 alive, perplexity 1"] and caption == "a caption"
    with pytest.raises(ValueError, match="empty"):
        show_codes.usage({})


def test_painted_codes_and_distances(small):
    assert show_codes.paint_codes(small, torch.arange(64)).shape == (64, 3, 8, 8)
    x = torch.rand(2, 3, 16, 24)
    found = show_codes.code_distances(small, x)
    assert found.shape == (2, 2, 3) and found.min() > 0
    with pytest.raises(ValueError, match="multiples of 8"):
        show_codes.code_distances(small, torch.rand(1, 3, 9, 8))


def test_a_blend_begins_and_ends_where_it_should(small):
    a, b = small.encode(torch.rand(2, 3, 64, 64))
    smooth, said = show_codes.blend(small, a, b, np.linspace(0, 1, 3))
    assert smooth.shape == said.shape == (3, 3, 64, 64)
    for i, ids in ((0, a), (2, b)):
        assert torch.allclose(smooth[i], small.decode(ids[None])[0], atol=1e-5)
        assert torch.allclose(said[i], smooth[i], atol=1e-5)


def test_the_microscope_draws_and_refuses(small, drawn):
    x = torch.rand(2, 3, 64, 64)
    before = x.clone()
    show_codes.microscope(small, x, picture=1, row=7, column=0, swap=8)
    assert len(drawn) == 1 and torch.equal(x, before)                  # the frame is drawn on a copy
    for place in ({"row": 8}, {"column": -1}, {"swap": 9}):
        with pytest.raises(ValueError, match="patches are rows 0..7"):
            show_codes.microscope(small, x, **place)


def test_strips_come_back(drawn):
    x = torch.rand(4, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    strip = show_codes.unstrip(vq_sweep.strip(x))
    assert strip.shape == (64, 256, 3)
    true = (torch.cat(list(x), 2).permute(1, 2, 0) * 255).numpy()
    assert np.abs(strip - true).mean() < 20
    red = torch.tensor([1.0, 0.1, 0.1])[:, None, None].expand(3, 64, 64)
    assert np.abs(show_codes.unstrip(vq_sweep.strip(torch.stack([x[0], red])))[8:-8, 72:-8] - [255, 25.5, 25.5]).max() < 12
    show_codes.wall({"a": vq_sweep.strip(x), "b": strip, "c": strip}, "three")
    assert len(drawn) == 1
    with pytest.raises(ValueError, match="empty"):
        show_codes.wall({})


def test_fewer_colours_make_a_lighter_figure(monkeypatch):
    import base64
    import io

    from matplotlib import pyplot as plt
    from PIL import Image
    sent = []
    monkeypatch.setattr(show, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, **_: sent.append(data))
    for colours in (None, 16):
        fig, axis = plt.subplots(figsize=(2, 2))
        axis.imshow(np.random.default_rng(0).random((32, 32, 3)))
        show.figure(fig, "noise", colours=colours)
    many, few = (base64.b64decode(d["image/png"]) for d in sent if "image/png" in d)
    assert len(few) < 0.5 * len(many) and len(Image.open(io.BytesIO(few)).convert("RGB").getcolors(10**6)) <= 16
    assert math.isclose(Image.open(io.BytesIO(few)).width, Image.open(io.BytesIO(many)).width)


def test_the_measured_tables_can_be_shown(drawn):
    sweep = json.loads(vq_sweep.FILE.read_text("utf-8"))
    rows = show_codes.cure_rows(sweep)
    assert rows[0]["cure"] == "nothing" and [r["cure"] for r in rows[-2:]] == ["all of section 7", "FSQ 8, 8, 8"]
    assert show_codes.mean(show_codes.cures(sweep)["nothing"], "codes_used") < 256
    rows = show_codes.sweep_rows(sweep)
    assert [r["tokens"] for r in rows[-2:]] == ["shipped", "true"] and rows[0]["tokens"] == 16
    sweep["runs"].pop("VQ 8192 patch 8", None)                         # a sweep that is not finished is shown as it is
    show_codes.sweep_plot(sweep)
    show_codes.sweep_wall(sweep)
    assert len(drawn) == 2
    rows = show_codes.codec_rows(json.loads((RESULTS / "vq_codecs.json").read_text("utf-8")))
    assert rows[1]["bytes"] == 72 and all(len(r) == 7 for r in rows)
    rows = show_codes.peer_rows(json.loads((RESULTS / "vq_benchmark.json").read_text("utf-8")))
    assert rows[0]["ratio"] and rows[-1]["ours"] <= 512


def test_seeds_are_shown_with_their_range():
    run = {"table": "cures", "psnr_db": 20.0, "codes_used": 100, "perplexity": 50.0, "objects": 1.0}
    more = {"1": {**run, "psnr_db": 21.0}, "2": {**run, "psnr_db": 20.6}}
    sweep = {"runs": {"cure: nothing": run, "VQ 512 patch 8": run, "FSQ 512 patch 8": run},
             "more seeds": {"cure: nothing": more}}
    rows = show_codes.cure_rows(sweep)
    assert rows[0]["PSNR, dB"] == "20.5 (20.0–21.0)" and rows[0]["signs read (OCR)"] == "–" and rows[0]["seeds"] == 3
    assert rows[1]["PSNR, dB"] == "20.0" and rows[1]["seeds"] == 1
    assert show_codes.mean(show_codes.seeds(sweep, "cure: nothing"), "psnr_db") == pytest.approx(61.6 / 3)


def test_the_microscope_survives_a_swap_that_turns_black_to_white(drawn):
    torch.manual_seed(0)
    loud = VQVAE(codes=64, dim=8, width=32).eval()
    with torch.no_grad():
        loud.decoder[-2].weight.mul_(1000)
    for swap in range(1, 9):
        show_codes.microscope(loud, torch.rand(1, 3, 64, 64), swap=swap)
    assert len(drawn) == 8
