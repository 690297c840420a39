"""Chapter 03's figures and tables: verdicts are computed from what was measured, and every figure can be drawn."""
import numpy as np
import pytest
import torch

from mmcourse import show
from mmcourse.files import results
from mmcourse.studies._ch03 import strip
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Group, Scene


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return VQVAE(codebook_size=64, dim=8, width=32).eval()


def test_strips_come_back(drawn):
    x = torch.rand(4, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    found = show.ch03.unstrip(strip(x))
    assert found.shape == (64, 256, 3)
    true = (torch.cat(list(x), 2).permute(1, 2, 0) * 255).numpy()
    assert np.abs(found - true).mean() < 20
    red = torch.tensor([1.0, 0.1, 0.1])[:, None, None].expand(3, 64, 64)
    assert np.abs(show.ch03.unstrip(strip(torch.stack([x[0], red])))[8:-8, 72:-8] - [255, 25.5, 25.5]).max() < 12
    show.ch03.wall({"a": strip(x), "b": found, "c": found}, "three")
    assert len(drawn) == 1
    with pytest.raises(ValueError, match="empty"):
        show.ch03.wall({})


def test_the_measured_tables_can_be_shown(drawn):
    sweep = results("ch03_sweep")
    rows = show.ch03.cure_rows(sweep)
    assert rows[0]["cure"] == "nothing" and [r["cure"] for r in rows[-2:]] == ["all of section 7", "FSQ 8, 8, 8"]
    assert show.ch03.mean(show.ch03.cures(sweep)["nothing"], "codes_used") < 256
    rows = show.ch03.sweep_rows(sweep)
    assert [r["tokens"] for r in rows[-2:]] == ["shipped", "true"] and rows[0]["tokens"] == 16
    sweep["runs"].pop("VQ 8192 patch 8", None)                         # a sweep that is not finished is shown as it is
    show.ch03.sweep_plot(sweep)
    show.ch03.sweep_wall(sweep)
    assert len(drawn) == 2
    rows = show.ch03.codec_rows(results("ch03_jpeg"))
    assert rows[1]["bytes"] == 72 and all(len(r) == 7 for r in rows)
    rows = show.ch03.peer_rows(results("ch03_benchmark"))
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


def test_figures_of_photographs(small, drawn):
    photo = torch.rand(3, 21, 34)
    show.ch03.code_distance_map(small, photo, photo * 0.5, torch.rand(2, 3, 16, 16), "far")
    show.ch03.compare({"x": photo, "y": photo}, {"half": lambda x: x / 2}, "ways")
    show.ch03.codec_wall(torch.rand(3, 64, 64), torch.rand(3, 64, 64), "bytes")
    assert [text for _, text in drawn] == ["far", "ways", "bytes"] and [len(fig.axes) for fig, _ in drawn[:2]] == [4, 4]


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
    rows = show.ch03.limit_rows(results("ch03_limits"))
    assert len(rows) == len(show.ch03.LIMITS) and rows[-1]["tokens"] == "true pictures (ceiling)"
    fake = {"plan": {"codes": 8192}, "rows": {name: {"psnr_db": db, "objects": 1.0} for name, db in
                                              {"moved": 22, "better ids": 23, "more codes": 24, "no codes": 25.5,
                                               "free vectors": 30}.items()}}
    text = show.ch03.limit_verdict(fake)
    assert "gain 1.0 dB, 8,192 codes 2.0, no codes at all 3.5" in text and "reached by: the encoder's vectors" in text
    assert "none of them" in show.ch03.limit_verdict(fake, floor=40)
    assert "signs (OCR)" in show.ch03.limit_rows(fake)[0]


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


def test_moved_rows_name_each_arm():
    rows = {"512 codes, context 1": {"psnr_db": 20.51, "objects": 1.0, "codes_used": 7, "signs_ocr": None, "cpu_minutes": 1.0},
            "no codes, context 3": {"psnr_db": 30.0, "objects": 1.0, "codes_used": None, "signs_ocr": 0.5, "cpu_minutes": 1.0}}
    found = show.ch03.moved_rows({"rows": rows})
    assert [r["codes used"] for r in found] == [7, "–"] and found[0]["PSNR, dB"] == "20.5"


def test_the_critics_table_verdict_and_wall(drawn):
    measured = results("ch03_gan")
    assert list(show.ch03.gan_ways(measured))[:2] == ["before", "squared error"]
    rows = show.ch03.gan_rows(measured)
    assert len(rows) == 6 and rows[-1]["the decoder went on with"] == "true pictures"
    assert len(show.ch03.gan_verdict(measured).splitlines()) == 3
    show.ch03.gan_wall(measured, "a wall")
    assert [text for _, text in drawn] == ["a wall"]
