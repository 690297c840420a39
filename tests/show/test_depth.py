"""Chapter 12's last part shown: verdicts follow from the rows, and each claim can fail."""

import numpy as np
import pytest
import torch

from mmcourse.show import depth


def small_rows(arms, more=lambda arm: {}):
    """Rows of small models: {arm: (bits of text, picture, sound)}."""
    def row(arm, bits, seed):
        return {"bits": dict(zip(depth.MODALITIES, (x * (1 + 0.001 * int(seed)) for x in bits))),
                "right": {"draw": 100, "hear": 50, "say": 80}, "asked": 240, **more(arm)}
    return {"rows": {arm: {seed: row(arm, bits, seed) for seed in depth.SEEDS} for arm, bits in arms.items()}}


def weights_rows():
    return small_rows({"token": (3.0, 10.0, 80.0), "text x 4": (2.5, 10.5, 81.0), "segment": (2.0, 12.0, 90.0),
                       "learned": (2.5, 11.0, 85.0)}, lambda arm: {"weights": {"text": 0.1, "image": 0.6, "audio": 0.3}})


def routed_rows():
    watched = {"taken": {m: {"1": 0.5, "3": 0.4} for m in depth.MODALITIES},
               "score and bits": {m: {"1": 0.1, "3": -0.2} for m in depth.MODALITIES},
               "as its place": {m: {"1": 0.8, "3": 0.9} for m in depth.MODALITIES}}
    return small_rows({"dense 3": (3.0, 70.0, 160.0), "dense 4": (2.7, 63.0, 148.0), "learned": (2.8, 65.0, 150.0),
                       "by place": (2.8, 65.0, 150.0), "thrown": (3.2, 72.0, 165.0)},
                      lambda arm: watched if arm == "learned" else {})


def depth_rows():
    def at(blocks, operations):
        return {"setting": 0.9, "blocks": blocks, "same": 0.99, "operations": operations}

    def traced(blocks, operations):
        shift = {"gate": 0.0, "confidence": 0.1, "place": 1.0}
        return {"n": 100, "ceiling": 1.2, "each": [0.9, 0.92, 0.94, 0.96, 0.98, 1.0],
                **{way: {"curve": [[1.0, 0.9], [3.0, 0.99], [6.0, 1.0]], "0.99": at(blocks + more, operations + more / 10),
                         "0.95": at(1.1, 0.3)} for way, more in shift.items()}}

    def answered(lost):
        return {"full": "1" * 100, "0.99": "1" * 99 + "0", "0.95": "1" * (100 - lost) + "0" * lost, "0.99 blocks": 2.5, "0.95 blocks": 1.1}

    def drafted(cpu):
        way = {"same": 40, "passes": 12.0, "drafts": 52.0, "operations": 1.2, "cpu": cpu}
        return {"n": 40, "tokens": 64.0, "one at a time": {**way, "cpu": 1.0}, "1 blocks, window 8": way,
                "2 blocks, window 4": {**way, "cpu": cpu + 0.1}, "the drafter": {"cpu": 0.2}}

    def seeds(make):
        out = {}
        for i, seed in enumerate(depth.SEEDS):
            out[seed] = make(0.01 * i)
        return out
    return {"plan": {"agree": [0.99, 0.95]},
            "traced": {"picture": seeds(lambda x: traced(2.5 + x, 0.55)), "caption": seeds(lambda x: traced(1.5 + x, 0.4)),
                       "word": seeds(lambda x: traced(5.5 + x, 0.98))},
            "answered": {answer: seeds(lambda x: answered(8 + round(100 * x))) for answer in depth.ANSWERS},
            "drafted": {answer: seeds(lambda x: drafted(0.5 + x)) for answer in depth.ANSWERS}}


def patches_rows():
    bits = {"surprise": 2.3, "pieces": 2.35, "stride": 2.45, "thrown": 2.5, "bytes": 2.1, "vocabulary": 2.0}
    return {"rows": {way: {seed: {"bits": value + 0.002 * int(seed), "bytes alone": value - 0.1 * (way == "pieces"), "length": 3.6,
                                  "flops": 1_300_000, "byte model": 2.8} for seed in depth.SEEDS} for way, value in bits.items()}}


TABLES = {"W": (weights_rows, depth.weights_verdicts), "R": (routed_rows, depth.routed_verdicts),
          "D": (depth_rows, depth.depth_verdicts), "E": (patches_rows, depth.patches_verdicts)}


@pytest.mark.parametrize("table", TABLES)
def test_all_as_expected(table):
    rows, verdicts = TABLES[table]
    found = {claim: text.split()[0] for claim, text in verdicts(rows()).items()}
    assert set(found.values()) == {"holds"}, found


def bits_of(found, arm, **changes):
    for row in found["rows"][arm].values():
        row["bits"].update(changes)


def at_99(found, answer, way, **changes):
    for row in found["traced"][answer].values():
        row[way]["0.99"].update(changes)


def answers(found, key, hits):
    for row in found["answered"]["picture"].values():
        row[key] = hits


def timed(found, answer, **changes):
    for row in found["drafted"][answer].values():
        for way in ("1 blocks, window 8", "2 blocks, window 4"):
            row[way].update(changes)


@pytest.mark.parametrize(("table", "claim", "change"), [
    ("W", "W1", lambda f: bits_of(f, "segment", text=4.0)),
    ("W", "W2, and more of pictures", lambda f: bits_of(f, "segment", image=9.0)),
    ("W", "W2, and of sound", lambda f: bits_of(f, "segment", audio=70.0)),
    ("W", "W3", lambda f: bits_of(f, "learned", text=1.0)),
    ("R", "R1", lambda f: bits_of(f, "thrown", audio=140.0)),
    ("R", "R2", lambda f: bits_of(f, "by place", audio=160.0, image=70.0)),
    ("R", "R3", lambda f: bits_of(f, "dense 3", image=60.0)),
    ("R", "R4", lambda f: bits_of(f, "dense 4", text=2.0)),
    ("R", "R5", lambda f: [row["score and bits"]["image"].update({"3": 0.5}) for row in f["rows"]["learned"].values()]),
    ("D", "D1, a picture", lambda f: at_99(f, "picture", "gate", blocks=3.5)),
    ("D", "D1, a sound", lambda f: at_99(f, "word", "gate", blocks=4.0)),
    ("D", "D2", lambda f: at_99(f, "picture", "place", blocks=2.6)),
    ("D", "D3, a caption: the gate", lambda f: at_99(f, "caption", "gate", operations=0.9)),
    ("D", "D3, a picture: own", lambda f: at_99(f, "picture", "confidence", operations=0.4)),
    ("D", "D4, scenes", lambda f: answers(f, "0.99", "1" * 90 + "0" * 10)),
    ("D", "D4, at 95", lambda f: answers(f, "0.95", "1" * 100)),
    ("D", "D5, drafts", lambda f: timed(f, "word", same=39)),
    ("D", "D5, a word", lambda f: timed(f, "word", cpu=1.2)),
    ("D", "D6", lambda f: timed(f, "picture", cpu=0.1)),
    ("E", "E1", lambda f: [row.update(bits=2.1) for row in f["rows"]["thrown"].values()]),
    ("E", "E2", lambda f: [row.update(bits=2.1) for row in f["rows"]["stride"].values()]),
    ("E", "E3", lambda f: [row.update(bits=2.1) for row in f["rows"]["pieces"].values()]),
    ("E", "E4", lambda f: [row.update(bits=2.4) for row in f["rows"]["bytes"].values()]),
    ("E", "E6", lambda f: [row.update(bits=2.2) for row in f["rows"]["vocabulary"].values()]),
    ("E", "E5", lambda f: [row.update({"bytes alone": row["bits"]}) for row in f["rows"]["pieces"].values()])])
def test_a_claim_can_fail(table, claim, change):
    rows, verdicts = TABLES[table]
    found = rows()
    change(found)
    assert "fails" in {text.split()[0] for name, text in verdicts(found).items() if name.startswith(claim)}


def test_what_no_interval_decides_is_undecided():
    found = routed_rows()
    for row, text, sound in zip(found["rows"]["by place"].values(), (2.0, 2.8, 3.6), (100.0, 150.0, 200.0)):
        row["bits"].update(text=text, audio=sound)
    assert depth.routed_verdicts(found)["R2, fewer than by place: in one modality at most"].startswith("undecided")


def test_a_wide_spread_is_undecided():
    found = patches_rows()
    for row, bits in zip(found["rows"]["thrown"].values(), (2.0, 2.5, 3.0)):
        row["bits"] = bits
    assert depth.patches_verdicts(found)["E1, surprise: fewer bits than thrown"].startswith("undecided")


def test_the_quickest_draft_is_the_one_with_the_least_mean():
    found = depth_rows()
    assert depth.quickest(found, "word") == ("1 blocks, window 8", pytest.approx([0.5, 0.51, 0.52]))
    for row in found["drafted"]["word"].values():
        row["2 blocks, window 4"]["cpu"] = 0.1
    assert depth.quickest(found, "word")[0] == "2 blocks, window 4"


def test_everything_is_shown(capsys):
    found = depth_rows()
    depth.weights(weights_rows())
    depth.agreement(found)
    depth.traced(found)
    depth.answered(found)
    depth.drafts(found)
    depth.routed(routed_rows())
    depth.patches(patches_rows())
    said = capsys.readouterr().out
    for word in ("weight of text", "99% agreement", "captions", "1 block, window 8", "2 blocks, window 4", "learned router, tokens of", "bytes a patch",
                 "each answer alike", "the drafter of section 4", "sound, block 4"):
        assert word in said


def test_maps_and_cuts(capsys):
    pictures = torch.rand(2, 3, 64, 64)
    depth.depths(pictures, [torch.full((64,), 2)] * 2, [np.ones(65)] * 2, ["a cat", "a bee"], "Maps.")
    depth.cut_text("a cat", [1.0, 2.0, 3.0, 1.0, 0.5], 1.5, {"surprise": [False, True, True, False, True]}, "Cuts.")
    assert {"Maps.", "Cuts."} <= {line.strip() for line in capsys.readouterr().out.splitlines()}
