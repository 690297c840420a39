"""Chapter 03's figures and tables: verdicts are computed from what was measured, and every figure can be drawn."""
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

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
    assert rows[0]["cure"] == "nothing" and [r["cure"] for r in rows[-2:]] == ["all of section 6", "FSQ 8, 8, 8"]
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
    assert "all of section 6: 512 codes, 21.0 dB" in text and "forgotten" not in text
    rows = {r["change"]: r for r in show.ch03.sweep_verdict(sweep)}
    assert rows["16x16 -> 8x8 patches, 512 codes"] == {"change": "16x16 -> 8x8 patches, 512 codes", "VQ": "+3.0 (one seed)",
                                                       "FSQ": "–"}
    assert rows["VQ -> FSQ, 512 codes, 8x8 patches"]["FSQ"] == "-1.0 (one seed)"
    rows = show.ch03.beside_rows(sweep, {"ours": "VQ 512 patch 8", "other": "FSQ 8192 patch 8"})
    assert rows[0] == {"": "ours", "PSNR, dB": "21.0 (20.0–22.0)", "signs read (OCR)": "–", "seeds": 2}
    assert rows[1] == {"": "other", "PSNR, dB": "–", "signs read (OCR)": "–", "seeds": 0}


def sweep_of(**decibels) -> dict:
    """A sweep as the verdict reads it: three seeds for each configuration, named `VQ_512_8`."""
    out = {"runs": {}, "more seeds": {}}
    for name, values in decibels.items():
        kind, codes, patch = name.split("_")
        runs = [{"table": "sweep", "psnr_db": v} for v in values]
        out["runs"][f"{kind} {codes} patch {patch}"] = runs[0]
        out["more seeds"][f"{kind} {codes} patch {patch}"] = dict(zip("12", runs[1:]))
    return out


def test_the_sweeps_verdict_depends_on_the_intervals():
    few, small, large = [20.0, 20.2, 19.8], [17.0, 17.1, 16.9], [20.8, 21.0, 20.6]
    said = show.ch03.sweep_says(sweep_of(VQ_512_8=few, VQ_512_16=small, VQ_65536_8=large, FSQ_65536_8=[20.0, 20.1, 19.9]))
    assert said.startswith("More codes help as much as smaller patches: fails. 128 times as many codes: +0.8 ± 0.0 dB; ")
    assert said.endswith("Three seeds: 4 of 4 rows. Fewer than three decide nothing here.")
    assert "FSQ is ahead at 65,536 codes of 8x8 patches: fails" in said
    said = show.ch03.sweep_says(sweep_of(VQ_512_8=few, VQ_512_16=small, VQ_65536_8=[26, 26.3, 26.1], FSQ_65536_8=[26, 26.6, 25.9]))
    assert "smaller patches: holds" in said and "FSQ is ahead at 65,536 codes of 8x8 patches: undecided" in said
    said = show.ch03.sweep_says(sweep_of(VQ_512_8=[20], VQ_512_16=[17], VQ_65536_8=[21], FSQ_65536_8=[25]))
    assert said.count("undecided") == 2 and "+1.0 dB (one seed); " in said, "one seed decides nothing"
    said = show.ch03.sweep_says(sweep_of(VQ_512_8=few[:2], VQ_512_16=small[:2], VQ_65536_8=large, FSQ_65536_8=large[:2]))
    assert said.count("undecided") == 2 and "+3.0 dB (2 seeds)" in said and "Three seeds: 1 of 4 rows" in said


def test_what_the_optimizer_is_worth_says_how_many_seeds_say_so():
    sweep = sweep_of(VQ_512_8=[20.0, 20.2, 19.8], FSQ_512_8=[19.0])
    sweep["runs"]["Muon: VQ 512 patch 8"] = {"table": "optimizer", "psnr_db": 24.0}
    assert show.ch03.optimizer_says(sweep) == "Muon in place of AdamW: VQ +4.0 dB (one seed), FSQ –."


def test_true_pictures_have_a_span_too():
    sweep = {"reference": {"other true pictures": {"fd": [0.1, 0.2, 0.3, 0.4, 0.5], "judged": 512}}}
    assert show.ch03.null_span(sweep) == "0.11 to 0.49 (5 other sets of 512)"


def test_who_is_ahead_at_72_bytes():
    def codec(kind, budget, db, count="payload"):
        return {"kind": kind, "budget": budget, "psnr_db": db, "count": count}
    measured = {"tokens": {"bytes": 72, "psnr_db": 29.0},
                "codecs": [codec("JPEG", 72, 15.0), codec("WEBP", 72, 16.0), codec("JPEG", 576, 22.0), codec("WEBP", 576, 30.0),
                           codec("JPEG", 72, 40.0, "file"), {"kind": "AVIF", "budget": 72, "count": "payload"}]}
    assert show.ch03.codec_verdict(measured) == (
        "72 bytes as tokens: 29.0 dB; the best of the others in as many: WEBP, 16.0 dB. To reach the tokens JPEG needs more than "
        "576, WEBP needs 576 bytes.")
    measured["tokens"]["psnr_db"] = 31.0
    assert show.ch03.codec_verdict(measured).endswith("None of them reaches the tokens even in 576 bytes.")


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
    assert len(show.ch03.gan_verdict(measured).splitlines()) == 4
    show.ch03.gan_wall(measured, "a wall")
    assert [text for _, text in drawn] == ["a wall"]


def test_the_critics_verdict_is_seed_by_seed():
    def run(db, fd, sharp=0.05):
        return {"psnr_db": db, "fd_same": fd, "sharpness": sharp}
    measured = {"before": run(23, 0.04), "true pictures": {"sharpness": 0.048},
                "ways": {"squared error": run(24, 0.030), "+ critic": run(23.9, 0.031), "+ perceptual": run(23.7, 0.020, 0.04)},
                "more seeds": {"squared error": {"1": run(24.2, 0.032), "2": run(24.1, 0.028)},
                               "+ critic": {"1": run(24.1, 0.030), "2": run(24.0, 0.030)},
                               "+ perceptual": {"1": run(23.9, 0.022, 0.04), "2": run(23.8, 0.018, 0.04)}}}
    critic, perceptual, sharp = show.ch03.gan_verdict(measured).splitlines()
    assert critic.startswith("+ critic: -0.1 ± 0.0 dB") and critic.endswith("undecided")
    assert perceptual.endswith("nearer to the true pictures") and sharp.endswith(": + perceptual")


def test_the_drawing_of_the_vqvae_fits_its_sheet(monkeypatch):
    sheets = []
    monkeypatch.setattr(show.diagrams.Canvas, "show", lambda sheet, description, caption="": sheets.append((sheet, description)))
    show.diagrams.ch03.vqvae("a caption")
    (sheet, description), = sheets
    texts = [text for text in sheet.axes.texts if text.get_text()]
    (left, right), (low, high) = sheet.axes.get_xlim(), sheet.axes.get_ylim()
    assert all(left <= t.get_position()[0] <= right and low <= t.get_position()[1] <= high for t in texts)
    assert min(t.get_fontsize() for t in texts) >= 8 and "round the quantizer" in description
    shapes = " ".join(t.get_text() for t in texts)
    assert all(shape in shapes for shape in ("64×64×3", "8×8×16", "512 × 16", "64 ids"))
    plt.close(sheet.figure)
