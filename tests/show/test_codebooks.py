"""Codebooks to look at: the numbers are right, and every figure can be drawn."""
import json
import math

import numpy as np
import pytest
import torch

from mmcourse import show
from mmcourse.paths import RESULTS
from mmcourse.studies import ch03_limits, ch03_moved, ch03_sweep
from mmcourse.vqvae import VQVAE, matte
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Group, Scene


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return VQVAE(codebook_size=64, dim=8, width=32).eval()


@pytest.fixture
def drawn(monkeypatch):
    """What was shown: the figures' captions, and the figures still open."""
    seen = []
    monkeypatch.setattr(show, "figure", lambda fig, text="", **_: (seen.append((fig, text)), fig.canvas.draw()))
    return seen


def test_health_by_hand():
    found = show.codebooks.health(torch.tensor([[[0, 0], [5, 7]]]), 16)
    assert found["used"] == 3 and found["perplexity"] == pytest.approx(2 ** 1.5) and found["bits"] == pytest.approx(1.5)
    assert found["nominal_bits"] == 4 and found["most_frequent"] == 0.5
    assert show.codebooks.health(np.arange(8), 8)["perplexity"] == pytest.approx(8)
    assert show.codebooks.counts(torch.zeros(2, 3, 4, dtype=torch.long), 5).tolist() == [24, 0, 0, 0, 0]


@pytest.mark.parametrize("ids, says", [([], "empty"), ([0, 16], r"0\.\.15"), ([-1], r"0\.\.15")])
def test_health_of_what_is_no_codebook(ids, says):
    with pytest.raises(ValueError, match=says):
        show.codebooks.health(ids, 16)


def test_usage_marks_the_living(drawn):
    show.codebooks.usage({"alive": [5, 5, 5, 5], "dead": torch.tensor([20, 0, 0, 0])}, "a caption")
    (figure, caption), = drawn
    labels = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert labels == ["alive: 4 alive, perplexity 4", "dead: 1 alive, perplexity 1"] and caption == "a caption"
    with pytest.raises(ValueError, match="empty"):
        show.codebooks.usage({})


def test_painted_codes_and_distances(small):
    assert show.codebooks.paint_codes(small, torch.arange(64)).shape == (64, 3, 8, 8)
    x = torch.rand(2, 3, 16, 24)
    found = show.codebooks.code_distances(small, x)
    assert found.shape == (2, 2, 3) and found.min() > 0
    with pytest.raises(ValueError, match="multiples of 8"):
        show.codebooks.code_distances(small, torch.rand(1, 3, 9, 8))


def test_a_blend_begins_and_ends_where_it_should(small):
    a, b = small.encode(torch.rand(2, 3, 64, 64))
    smooth, said = show.codebooks.blend(small, a, b, np.linspace(0, 1, 3))
    assert smooth.shape == said.shape == (3, 3, 64, 64)
    for i, ids in ((0, a), (2, b)):
        assert torch.allclose(smooth[i], small.decode(ids[None])[0], atol=1e-5)
        assert torch.allclose(said[i], smooth[i], atol=1e-5)


def test_the_microscope_draws_and_refuses(small, drawn):
    x = torch.rand(2, 3, 64, 64)
    before = x.clone()
    show.codebooks.microscope(small, x, picture=1, row=7, column=0, swap=8)
    assert len(drawn) == 1 and torch.equal(x, before)                  # the frame is drawn on a copy
    for place in ({"row": 8}, {"column": -1}, {"swap": 9}):
        with pytest.raises(ValueError, match="patches are rows 0..7"):
            show.codebooks.microscope(small, x, **place)


def test_strips_come_back(drawn):
    x = torch.rand(4, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    strip = show.ch03.unstrip(ch03_sweep.strip(x))
    assert strip.shape == (64, 256, 3)
    true = (torch.cat(list(x), 2).permute(1, 2, 0) * 255).numpy()
    assert np.abs(strip - true).mean() < 20
    red = torch.tensor([1.0, 0.1, 0.1])[:, None, None].expand(3, 64, 64)
    assert np.abs(show.ch03.unstrip(ch03_sweep.strip(torch.stack([x[0], red])))[8:-8, 72:-8] - [255, 25.5, 25.5]).max() < 12
    show.ch03.wall({"a": ch03_sweep.strip(x), "b": strip, "c": strip}, "three")
    assert len(drawn) == 1
    with pytest.raises(ValueError, match="empty"):
        show.ch03.wall({})


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
    sweep = json.loads(ch03_sweep.FILE.read_text("utf-8"))
    rows = show.ch03.cure_rows(sweep)
    assert rows[0]["cure"] == "nothing" and [r["cure"] for r in rows[-2:]] == ["all of section 7", "FSQ 8, 8, 8"]
    assert show.ch03.mean(show.ch03.cures(sweep)["nothing"], "codes_used") < 256
    rows = show.ch03.sweep_rows(sweep)
    assert [r["tokens"] for r in rows[-2:]] == ["shipped", "true"] and rows[0]["tokens"] == 16
    sweep["runs"].pop("VQ 8192 patch 8", None)                         # a sweep that is not finished is shown as it is
    show.ch03.sweep_plot(sweep)
    show.ch03.sweep_wall(sweep)
    assert len(drawn) == 2
    rows = show.ch03.codec_rows(json.loads((RESULTS / "ch03_jpeg.json").read_text("utf-8")))
    assert rows[1]["bytes"] == 72 and all(len(r) == 7 for r in rows)
    rows = show.ch03.peer_rows(json.loads((RESULTS / "ch03_benchmark.json").read_text("utf-8")))
    assert rows[0]["ratio"] and rows[-1]["ours"] <= 512


def test_seeds_are_shown_with_their_range():
    run = {"table": "cures", "psnr_db": 20.0, "codes_used": 100, "perplexity": 50.0, "objects": 1.0}
    more = {"1": {**run, "psnr_db": 21.0}, "2": {**run, "psnr_db": 20.6}}
    sweep = {"runs": {"cure: nothing": run, "VQ 512 patch 8": run, "FSQ 512 patch 8": run},
             "more seeds": {"cure: nothing": more}}
    rows = show.ch03.cure_rows(sweep)
    assert rows[0]["PSNR, dB"] == "20.5 (20.0–21.0)" and rows[0]["signs read (OCR)"] == "–" and rows[0]["seeds"] == 3
    assert rows[1]["PSNR, dB"] == "20.0" and rows[1]["seeds"] == 1
    assert show.ch03.mean(show.ch03.seeds(sweep, "cure: nothing"), "psnr_db") == pytest.approx(61.6 / 3)


def test_the_microscope_survives_a_swap_that_turns_black_to_white(drawn):
    torch.manual_seed(0)
    loud = VQVAE(codebook_size=64, dim=8, width=32).eval()
    with torch.no_grad():
        loud.decoder[-2].weight.mul_(1000)
    for swap in range(1, 9):
        show.codebooks.microscope(loud, torch.rand(1, 3, 64, 64), swap=swap)
    assert len(drawn) == 8


def test_patches_go_there_and_back():
    x = torch.rand(2, 3, 16, 16)
    patches = show.ch03.to_patches(x)
    assert patches.shape == (8, 192) and torch.equal(show.ch03.from_patches(patches, size=16), x)
    assert torch.equal(patches[1], x[0, :, :8, 8:].flatten())              # row by row: the second patch is to the right


def test_refusals_say_so_and_a_call_that_takes_anything_fails(small):
    rows = show.ch03.refusals(small.encode, {"one alone": torch.rand(3, 64, 64), "bytes": torch.zeros(1, 3, 8, 8).byte()})
    assert [r["the answer"].split(":")[0] for r in rows] == ["ValueError", "TypeError"]
    with pytest.raises(AssertionError, match="a picture was accepted"):
        show.ch03.refusals(small.encode, {"a picture": torch.rand(1, 3, 8, 8)})


def test_signs_are_read_and_confused_letters_counted():
    scenes = [Scene((Group("cat", 1, "left"),), "blue", sign="DOG"), Scene((Group("cat", 1, "left"),), "blue")]
    share, pairs = show.ch03.signs_read(draw_batch(scenes), scenes)
    assert share == 1 and pairs == [("DOG", "DOG")]
    with pytest.raises(ValueError, match="has a sign"):
        show.ch03.signs_read(draw_batch(scenes[1:]), scenes[1:])
    assert show.ch03.confusions([("DO", "OO"), ("DAD", "OAD"), ("CAT", "CA")]) == [("D→O", 2)]


def test_figures_of_codes_and_photographs(small, drawn):
    show.codebooks.scatter(torch.rand(9, 2), {"a": torch.rand(3, 2), "b": torch.rand(3, 2)}, "two")
    show.codebooks.code_sheet(small, torch.arange(64), "sheet")
    photo = torch.rand(3, 21, 34)
    show.ch03.code_distance_map(small, photo, photo * 0.5, torch.rand(2, 3, 16, 16), "far")
    show.ch03.compare({"x": photo, "y": photo}, {"half": lambda x: x / 2}, "ways")
    show.ch03.codec_wall(torch.rand(3, 64, 64), torch.rand(3, 64, 64), "bytes")
    assert [text for _, text in drawn] == ["two", "sheet", "far", "ways", "bytes"]
    assert [len(fig.axes) for fig, _ in drawn[:4]] == [2, 1, 4, 4]


def test_verdicts_are_computed_from_the_means():
    def run(db, used, table="cures"):
        return {"table": table, "psnr_db": db, "codes_used": used}

    sweep = {"runs": {"cure: nothing": run(18, 20), "cure: restart": run(19, 500), "cure: k-means start": run(21, 300),
                      "VQ 512 patch 8": run(20, 512, "sweep"), "FSQ 512 patch 8": run(19, 300, "sweep"),
                      "VQ 512 patch 16": run(17, 400, "sweep")},
             "more seeds": {"VQ 512 patch 8": {"1": run(22, 512)}, "cure: restart": {"1": run(20, 300)}}}
    text = show.ch03.cure_verdict(sweep)
    assert "'restart' keeps most codes alive (400 codes, 19.5 dB)" in text and "'k-means start' gives the best" in text
    assert "all of section 7: 512 codes, 21.0 dB" in text and "forgotten" not in text
    rows = {r["change"]: r for r in show.ch03.sweep_verdict(sweep)}
    assert rows["16x16 -> 8x8 patches, 512 codes"] == {"change": "16x16 -> 8x8 patches, 512 codes", "VQ": "+4.0", "FSQ": "–"}
    assert rows["VQ -> FSQ, 512 codes, 8x8 patches"]["FSQ"] == "-2.0"
    line = show.ch03.beside(sweep, "VQ 512 patch 8", "FSQ 8192 patch 8")
    assert line == "VQ 512 patch 8: 21.0 dB (20.0–22.0), – of signs, n = 2 against FSQ 8192 patch 8: not measured"


def test_the_limits_can_be_shown():
    limits = json.loads(ch03_limits.FILE.read_text("utf-8"))
    assert limits["plan"]["sha256"] == ch03_sweep.shipped_hash(), "another tokenizer is shipped: run mmcourse.studies.ch03_limits again"
    rows = show.ch03.limit_rows(limits)
    assert len(rows) == len(show.ch03.LIMITS) and rows[-1]["tokens"] == "true pictures (ceiling)"
    fake = {"plan": {"codes": 8192}, "rows": {name: {"psnr_db": db, "objects": 1.0} for name, db in
                                              {"moved": 22, "better ids": 23, "more codes": 24, "no codes": 25.5,
                                               "free vectors": 30}.items()}}
    text = show.ch03.limit_verdict(fake)
    assert "gain 1.0 dB, 8,192 codes 2.0, no codes at all 3.5" in text and "reached by: the encoder's vectors" in text
    assert "none of them" in show.ch03.limit_verdict(fake, floor=40)
    assert "signs (OCR)" in show.ch03.limit_rows(fake)[0]


def test_a_search_makes_no_picture_worse_and_finds_a_spoilt_token(small):
    x = torch.rand(3, 3, 64, 64)
    ids = small.encode(x)

    def errors(tokens):
        return (small.decode(tokens) - x).square().sum((1, 2, 3))

    better = ch03_limits.search(small, x, ids, near=4)
    assert (errors(better) <= errors(ids) + 1e-4).all() and errors(better).sum() < errors(ids).sum()
    with pytest.raises(ValueError, match="multiples of 4"):
        ch03_limits.search(small, x[:, :, :, :40], ids[:, :, :5])
    z = ch03_limits.vectors(small, x)
    free = ch03_limits.free(small, x, z, steps=5)
    assert free.shape == z.shape and not torch.equal(free, z)
    assert torch.allclose(ch03_limits.paint_vectors(small, small.quantizer.codebook[ids]), small.decode(ids), atol=1e-5)


def test_tokenizers_that_grow_up_on_moved_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ch03_moved, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(ch03_moved, "BATCH", 2)
    monkeypatch.setattr(ch03_moved, "measure", lambda model: {"psnr_db": 20.0 + model.quantizer.codebook_size / 1000, "objects": 1.0,
                                                            "codes_used": 7, "signs_ocr": None})
    file, arms = tmp_path / "moved.json", ["512 codes, context 1", "no codes, context 3"]
    found = ch03_moved.main(["--steps", "2", "--arms", arms[1]], file)
    assert list(found["rows"]) == arms[1:] and json.loads(file.read_text())["plan"]["steps"] == 2
    found["rows"][arms[1]]["psnr_db"] = 30.0
    file.write_text(json.dumps(found))
    found = ch03_moved.main(["--steps", "2", "--arms", *arms], file)
    assert set(found["rows"]) == set(arms) and found["rows"][arms[1]]["psnr_db"] == 30.0, "what is there is not run again"
    rows = show.ch03.moved_rows(found)
    assert [r["codes used"] for r in rows] == [7, "–"] and rows[0]["PSNR, dB"] == "20.5"


def test_the_verdict_on_moved_pictures():
    def rows(with_codes: float) -> dict:
        return {"rows": {"8192 codes, context 1": {"psnr_db": with_codes, "signs_ocr": 0.9, "cpu_minutes": 7.4},
                         "512 codes, context 1": {"psnr_db": 20.0, "signs_ocr": 0.7, "cpu_minutes": 5.0},
                         "no codes, context 3": {"psnr_db": 26.0, "signs_ocr": 0.95, "cpu_minutes": 5.0}}}
    said = show.ch03.moved_verdict(rows(24.04))
    assert said.startswith("With codes the best is 24.0 dB and 90% of the signs (8,192 codes, context 1, 7 CPU minutes); ")
    assert "without codes 26.0 dB and 95%" in said and said.endswith("are reached by: no codes, context 3.")
    assert "8,192 codes, context 1; no codes" in show.ch03.moved_verdict(rows(25.0))
    assert show.ch03.moved_verdict(rows(24.0), floor=27).endswith("none of them.")


def test_without_codes_the_vectors_pass_as_they_are():
    model, x = ch03_moved.make(None, 3), torch.rand(2, 3, 64, 64)
    z = model.encoder(matte(x) * 2 - 1)
    torch.testing.assert_close(model(x)[0], model.decoder(z) + 0.5)
