"""Claims of the text hold in the recorded results: `data/results` says what the chapters say of it.

Nothing is computed here: a change of the code rarely fails these tests, a new measurement may. Then either the text or the
measurement is to be looked at. (That the scripts can measure again is tested with each script; that a figure can be drawn,
with the figure.)
"""
import importlib
import math

import pytest

from mmcourse import checkpoints
from mmcourse.cli.train import studies
from mmcourse.files import results
from mmcourse.paths import RESULTS


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def test_nothing_that_was_measured_is_missing_or_strange():
    names = {path.stem for path in RESULTS.glob("*.json")}
    assert names >= {"ch01_prices", "ch01_text", "ch02_benchmark", "ch03_benchmark", "ch03_gan", "ch03_jpeg", "ch03_limits", "ch03_moved", "ch03_sweep",
                     "ch04_controls", "ch04_limits", "ch04_peers", "ch04_probes", "ch04_sweep", "ch04_vocoder", "ch05_benchmark", "ch05_exclusion",
                     "ch06_ablations", "ch06_composing", "ch06_composition", "ch06_said_first", "ch06_specialists",
                     "ch07_decoder", "ch07_decoder128", "ch07_long", "ch07_sampling", "ch07_sound", "ch08_words", "ch09_facts", "evaluate"}
    for name in names:                                                 # `results` refuses what is not JSON

        def look(value, name=name):
            assert not isinstance(value, float) or math.isfinite(value), name
            for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
                look(part)
        look(results(name))


@pytest.mark.parametrize("name", studies())
def test_a_table_is_whole_and_was_measured_on_what_is_shipped(name):
    """Its plan is the study's, its checkpoints are the shipped ones, and every row is there that is not optional."""
    study = importlib.import_module(f"mmcourse.studies.{name}").STUDY
    jobs = study.jobs(study.plan, study.seeds or ())
    found = study.saved(study.file, study.plan, jobs)                  # ValueError if it belongs to another plan
    missing = {(job.name, job.seed) for job in jobs if not job.optional and not job.done(found)}
    assert missing == set(), f"mmcourse study {name} measures what is missing"


def test_the_peers_of_the_codec_were_compared_with_the_shipped_one():
    assert results("ch04_peers")["codec_sha256"] == checkpoints.identity("codec"), "run tests/benchmarks/codec.py again"


# ---------------------------------------------------------------- chapter 02

def test_the_course_s_tokenizer_is_as_quick_as_it_says():
    found = {name: row for name, row in results("ch02_benchmark").items() if isinstance(row, dict) and "floor" in row}
    assert found.keys() == {"import", "train_100kb_512", "train_1mb_4096", "train_10mb_4096", "encode_10mb_32768"}
    for name, row in found.items():
        assert row["met"] and row["times_as_fast"] >= row["floor"], name


# ---------------------------------------------------------------- chapter 03

def test_the_benchmark_of_quantizers_says_what_was_met():
    found = results("ch03_benchmark")
    step = found["speed"]["step at 512 codes"]["peer / ours"]
    assert found["met"]["step at 512 codes: 3x as fast"] == (step >= 3)
    assert set(found["equal indices"].values()) == {1.0} and all(isinstance(v, bool) for v in found["met"].values())


def test_the_sweep_of_codebooks_adds_up():
    found = results("ch03_sweep")
    for name, run in found["runs"].items():
        assert run["tokens"] == (64 // run["patch"]) ** 2, name
        assert run["measured_bits"] <= run["nominal_bits"] + 0.1 and run["codes_used"] <= run["codes"], name
        assert 0 <= run["letters"] <= 1 and run["perplexity"] <= run["codes_used"] + 0.1, name
    assert all(0 < run["codes_used"] <= found["runs"][name]["codes"] for name, rows in found["more seeds"].items() for run in rows.values())
    nothing = [found["runs"]["cure: nothing"], *found["more seeds"]["cure: nothing"].values()]
    assert mean(run["codes_used"] for run in nothing) < 256, "without a cure the codebook collapses"


def test_four_times_as_many_tokens_change_everything_128_times_as_many_codes_little():
    runs = {name: run["psnr_db"] for name, run in results("ch03_sweep")["runs"].items()}
    for kind in ("VQ", "FSQ"):
        tokens = runs[f"{kind} 512 patch 8"] - runs[f"{kind} 512 patch 16"]
        codes = runs[f"{kind} 65536 patch 16"] - runs[f"{kind} 512 patch 16"]
        assert tokens > 2 and codes < 0.5 * tokens, (kind, tokens, codes)


def test_a_critic_costs_decibels_not_the_picture():
    found = results("ch03_gan")
    assert all(row["psnr_db"] > found["before"]["psnr_db"] - 6 and row["fd_same"] >= 0 for row in found["ways"].values())


def test_more_steps_do_more_for_moved_pictures_than_more_codes():
    found = {name: row["psnr_db"] for name, row in results("ch03_moved")["rows"].items()}
    few, many = "512 codes, context 1", "8192 codes, context 1"
    assert found[f"{few}, four times as long"] > found[many] > found[few]


# ---------------------------------------------------------------- chapter 04

def test_what_the_probes_find():
    best = {view: facts["brightness"]["score"] for view, facts in results("ch04_probes")["views"].items()}
    assert {"level 0", "levels 0 to 1", "levels 0 to 3", "not rounded", "log-mel"} <= set(best)
    assert best["all levels, shuffled"] < 0.1 < best["level 0"] < best["not rounded"]


def test_deep_voices_lose_their_pitch_and_a_longer_window_keeps_more_of_it():
    found = results("ch04_controls")
    deep, high = found["shipped"][0], found["shipped"][-3]
    assert deep["ways"]["4 levels"]["right"] < 0.3 < deep["ways"]["no tokens"]["right"] < high["ways"]["4 levels"]["right"]
    for seed, run in found["runs"]["as it is"].items():
        other = found["runs"]["window of 64 ms"][seed]
        for row, longer in zip(run["voices"][:4], other["voices"][:4], strict=True):
            assert row["voice"] == longer["voice"] and row["hz"] < 120
        kept, more = (mean(row["ways"]["4 levels"]["right"] for row in rows["voices"][:4]) for rows in (run, other))
        assert more > kept + 0.05, seed


def test_more_levels_are_heard_better_and_nothing_beats_the_uncoded_sound():
    for rows in (each["rows"] for each in results("ch04_peers")["sets"].values()):
        assert rows["uncoded"]["stoi"] == pytest.approx(1, abs=1e-3)
        assert rows["1 level"]["stoi"] < rows["4 levels"]["stoi"] < rows["log-mel, no tokens"]["stoi"]


def test_the_vocoder_network_loses_to_griffin_lim_here():
    found = results("ch04_vocoder")["rows"]
    assert len(found) == 4
    for mel in ("true log-mel", "log-mel from 4 levels"):
        assert found[f"{mel}, network"]["stoi"] < found[f"{mel}, Griffin-Lim"]["stoi"]
        assert found[f"{mel}, network"]["times_real_time"] > found[f"{mel}, Griffin-Lim"]["times_real_time"]


# ---------------------------------------------------------------- chapters 05 and 06

def test_the_cache_changes_the_speed_alone():
    writing = results("ch05_benchmark")["writing"]
    assert writing["identical"] is True
    for batch in ("batch 1", "batch 16"):
        assert writing[batch]["identical"] and writing[batch]["naive / cache"] > 10


def test_the_comparison_with_specialists_is_complete():
    rows = results("ch06_specialists")["rows"]
    nets, directions = {r["net"] for r in rows}, {"text->image", "image->text", "text->audio", "audio->text"}
    assert "one net" in nets and len(nets) == 3
    for seed in range(3):
        assert {(r["net"], r["direction"]) for r in rows if r["seed"] == seed} == {(n, d) for n in nets for d in directions}


def test_every_ablation_has_its_three_seeds():
    rows = results("ch06_ablations")["rows"]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    assert arms[0] == "as it is" and [(r["arm"], r["seed"]) for r in rows] == [(arm, seed) for arm in arms for seed in range(3)]


# ---------------------------------------------------------------- chapter 07

def test_the_study_of_sampling_is_whole():
    rows = results("ch07_sampling")["rows"]
    for name in ("on the grid", "moved", "generated"):
        mine = [row for row in rows if row["set"] == name]
        assert {("plain", 0), ("flow", 1), ("flow", 2), ("regression", 1), ("shipped", 2)} <= {(r["decoder"], r["steps"]) for r in mine}
        for decoder, steps in (("flow", 2), ("regression", 1)):
            assert len({r["seed"] for r in mine if (r["decoder"], r["steps"]) == (decoder, steps)}) == 3


def test_two_steps_of_the_picture_decoder_are_enough():
    """More steps gain nothing (chapter 07): neither in the distance nor in what is read."""
    found = {row["steps"]: row for row in results("ch07_decoder")["steps"]}
    assert all(found[2]["fd_same_diffusion"] <= row["fd_same_diffusion"] + 0.003 for steps, row in found.items() if steps > 2)
    assert found[2]["fd_same_diffusion"] < found[2]["fd_same_plain"]


def test_the_diffusion_decoder_for_sound_does_not_gain_intelligibility():
    found = results("ch07_sound")
    assert found["chosen"] in found["knobs"] and found["knobs"][found["chosen"]]["stoi"] <= found["knobs"]["plain"]["stoi"] + 0.005


def test_many_tokens_in_one_pass_are_the_same_tokens():
    from mmcourse.show import ch12
    found = results("ch12_parallel")
    says = {name[:2]: text.split()[0].lower() for name, text in ch12.parallel_verdicts(found).items()}
    assert says == {"P1": "holds", "P2": "holds", "P3": "holds", "P4": "fails", "P5": "fails", "P6": "holds"}
    assert found["alone"]["drafter"].count("1") == found["alone"]["n"], "every scene that the drafter draws alone is right"
    for choice in found["cost"]:                                        # why `generate` takes it for up to four pictures
        assert ch12.quicker(found, choice, "4", "drafted") > 1 > ch12.quicker(found, choice, "16", "drafted")
        assert ch12.quicker(found, choice, "2", "Jacobi") > 1
    assert ch12.chi_verdict(found).split()[0] == "holds"
    ledger = {name[:2]: text.split()[0] for name, text in ch12.ledger_verdicts(results("ch12_ledger")).items()}
    assert ledger == {"L1": "fails", "L2": "holds", "L3": "holds", "L4": "holds"}


def test_what_is_said_of_fewer_tokens():
    """Chapter 12: a sampler invents, the balance is at all tokens and one look of a painter that knows the request, budgets follow
    the scene."""
    from mmcourse.show import shelves
    found, budget = results("ch12_nested"), results("ch12_budget")
    says = {name.split(",")[0]: text.split()[0] for name, text in {**shelves.nested_verdicts(found), **shelves.balance_verdicts(found),
                                                                   **shelves.budget_verdicts(budget)}.items()}
    assert says == {"N1": "undecided", "N2": "undecided", "N3a": "holds", "N3b": "holds", "N3c": "holds", "N4": "undecided",
                    "N5": "fails", "N6": "fails", "B1": "holds", "B2": "undecided", "B3": "fails", "B4": "holds"}
    rows = {told: {(row["k"], row["passes"]): row["right"] for row in shelves.mean_points(found, "small", told)}
            for told in ("both", "tokens")}
    assert rows["both"][12, 1] > rows["both"][12, 0] + 0.05 and abs(rows["tokens"][12, 1] - rows["tokens"][12, 0]) < 0.02
    assert rows["both"][0, 16] < 0.6 < 0.8 < rows["both"][12, 0]
    assert found["settings"]["chance"] < 0.1


def test_what_is_said_of_weights_and_depth():
    """Chapter 12, last part: a block decides pictures, sounds need all, drafts of one block are exact; routers had no room."""
    from mmcourse.show import depth

    def says(verdicts):
        return {name: text.split()[0] for name, text in verdicts.items()}
    weights = says(depth.weights_verdicts(results("ch12_weights")))
    assert [*weights.values()] == ["holds", "holds", "fails", "undecided", "undecided", "undecided"], weights
    found = results("ch12_depth")
    exits = says(depth.depth_verdicts(found))
    assert {name for name, said in exits.items() if said == "fails"} == {"D3, a picture: own confidence saves less",
                                                                         "D5, a word comes sooner"}
    assert {name for name, said in exits.items() if said == "undecided"} == {
        "D1, a picture's token: at most 3 blocks", "D2, pictures: half a block less than by place",
        "D4, scenes right: within 3 points"}
    after_one = {answer: [row["each"][0] for row in found["traced"][answer].values()] for answer in depth.ANSWERS}
    assert min(after_one["picture"]) > 0.95 > 0.92 > min(after_one["caption"]) > 0.88 > 0.25 > max(after_one["word"])
    assert depth.right(found, "caption", "full") > 0.98 > 0.88 > depth.right(found, "caption", "0.99")
    assert depth.quickest(found, "caption")[0].startswith("1 blocks") and depth.quickest(found, "picture")[0].startswith("1 blocks")
    routed = results("ch12_routed")
    decided = {name: said for name, said in says(depth.routed_verdicts(routed)).items() if said != "undecided"}
    assert decided == {"R4, behind dense 4 by a tenth at most, sound": "holds",
                       "R5, score and bits: correlation below .3 everywhere": "fails"}
    for modality in depth.MODALITIES:                                   # no room in bits: the ceiling is not above the control
        low, high = depth.relative(routed, "dense 4", "dense 3", modality)
        assert low < 0 < high
    said = {arm: [row["right"]["say"] for row in routed["rows"][arm].values()] for arm in ("dense 3", "dense 4")}
    assert min(said["dense 4"]) > max(said["dense 3"])                  # but in words said rightly
    assert all(row["score and bits"]["image"]["3"] > 0.3 for row in routed["rows"]["learned"].values())
