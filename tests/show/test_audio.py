"""Chapter 04's figures: tones by their contour, sounds and tables that can be shown, clear errors for what is no sound."""
import types

import numpy as np
import pytest
import torch

from mmcourse import show
from mmcourse.files import results
from mmcourse.judges import pitch
from mmcourse.studies._ch04 import small_sound


def test_a_tone_is_known_by_its_contour():
    t = np.arange(4000) / 8000

    def glide(cents):
        hz = 200 * 2 ** (cents * t / 0.5 / 1200)
        return sum(np.sin(2 * np.pi * k * np.cumsum(hz) / 8000) / k for k in range(1, 8))
    known = {name: [show.audio.contour(glide(c))] for name, c in (("rising", 500), ("level", 0), ("falling", -500))}
    assert show.audio.nearest_tone(show.audio.contour(glide(400)), known) == "rising"
    assert show.audio.nearest_tone(show.audio.contour(glide(-400)), known) == "falling"
    assert show.audio.contour(np.zeros(4000)) is None and show.audio.nearest_tone(None, known) == ""


def test_sounds_survive_the_results_file():
    x = pitch.notes([300.0])
    back = show.audio.unpack(small_sound(x))
    assert back.shape == x.shape and np.abs(back - x).max() < 0.02


def test_the_explorer(random_codec, capsys):
    sound = pitch.notes([200.0], 0.4)
    show.audio.explore(random_codec, sound, 3, 4)
    assert "Frame 3" in capsys.readouterr().out
    assert show.audio.alone(random_codec, torch.tensor([1, 2])).shape == (10 * 320,)
    for frame, levels in ((10, 1), (-1, 1), (0, 0), (0, 5)):
        with pytest.raises(ValueError, match="levels 1..4"):
            show.audio.explore(random_codec, sound, frame, levels)


def test_players_and_tables(capsys):
    with pytest.raises(ValueError, match="empty"):
        show.audio.players({})
    with pytest.raises(ValueError, match="'a' is no sound"):
        show.audio.players({"a": np.zeros((2, 3))})
    with pytest.raises(ValueError, match="the sets are"):
        show.audio.peer_rows({"sets": {"a person": {}}}, "a robot")
    show.audio.players({"a": np.zeros(80)}, "quiet")
    assert "quiet" in capsys.readouterr().out


def test_an_upload_is_read(tmp_path):
    import soundfile
    soundfile.write(tmp_path / "a.wav", np.stack([pitch.notes([200.0])] * 2, 1), 44100)
    chosen = {"name": "a.wav", "content": memoryview((tmp_path / "a.wav").read_bytes())}
    assert show.audio.uploaded(types.SimpleNamespace(value=())) is None
    assert show.audio.uploaded(types.SimpleNamespace(value=(chosen,))).dtype == np.float32


def test_the_measured_tables_can_be_shown(drawn):
    sweep = results("ch04_sweep")
    assert len(show.audio.sweep_rows(sweep)) == len(sweep["runs"]) + 2 + 2
    assert show.audio.sweep_rows(sweep)[0]["bits a token, measured"].endswith("of 9, level 0")
    assert len(show.audio.probe_rows(results("ch04_probes"))) == 5
    show.audio.sweep_plot(sweep, "sweep")
    show.audio.probe_plot(results("ch04_probes"), "probes")
    show.audio.peer_plot(results("ch04_peers"), "peers")
    assert len(show.audio.vocoder_rows(results("ch04_vocoder"))) == 4
    assert [text for _, text in drawn] == ["sweep", "probes", "peers"]


def test_gains_of_the_sweep():
    def run(ms, codes, stoi, levels=1):
        rows = [{"levels": n, "stoi": stoi, "bits_per_second": 1} for n in ((1,) if levels == 1 else (1, 2, 4))]
        return {"milliseconds": ms, "codebook_size": codes, "levels": levels, "rows": rows}
    runs = [run(40, 512, 0.9, 4), run(40, 1024, 0.5), run(40, 8192, 0.6), run(20, 1024, 0.7), run(20, 8192, 0.8)]
    sweep = {"runs": {i: {"0": found, "1": found} for i, found in enumerate(runs)}}
    frame, book = show.audio.sweep_gains(sweep)
    assert frame == pytest.approx([0.2, 0.2]) and book == pytest.approx([0.1, 0.1])
    assert show.audio.sweep_stoi(sweep)[40, 512, 4] == [0.9, 0.9]


@pytest.mark.parametrize("values, word", [((0.1, 0.11, 0.12), "holds"), ((-0.1, -0.11, -0.12), "fails"),
                                          ((0.1, 0.01, 0.2), "undecided"), ((0.01, 0.02, 0.04), "undecided")])
def test_a_verdict_needs_an_interval_that_leaves_zero_out(values, word):
    said = show.audio.verdict(values, "gain ")
    assert said.startswith("gain +0" if values[0] > 0 else "gain -0") and said.endswith(f"3 seeds): {word}")
    assert show.audio.verdict(values[:1]).endswith("(one seed): undecided")


def test_rows_of_deep_and_high_voices():
    def voice(hz, share):
        ways = {way: {"pitched": 1.0, "right": share} for way in ("no tokens", "nothing rounded", "4 levels")}
        return {"voice": "v", "hz": hz, "ways": ways}
    run = {"voices": [voice(90, 0.2), voice(110, 0.4), voice(200, 1.0)]}
    controls = {"runs": {"as it is": {"0": run, "1": run}}}
    assert show.audio.pitch_right(run, "4 levels") == pytest.approx(0.3)
    assert show.audio.control_rows(controls)[0]["high: 4 levels"] == "100%, 100%"
    assert show.audio.voice_rows(run["voices"])[0] == {"voice": "v", "pitch": "90 Hz", "no tokens": "20%",
                                                       "nothing rounded": "20%", "4 levels": "20%"}


def test_rows_of_what_limits_the_codec():
    row = {"stoi": 0.9, "pesq": 2.5, "pesq_interval": [2.4, 2.6], "words": 0.8, "words_minus_true": -0.05,
           "words_interval": [-0.08, -0.02], "pitch_kept": 0.5}
    found = show.audio.limit_rows({"rows": {"4 levels": row}}, ["4 levels"])
    assert found[0]["words minus true"] == "-5.0 (-8.0 to -2.0)" and found[0]["PESQ"] == "2.50 (2.40 to 2.60)"


def test_tones_heard_of_notes_that_rise_and_fall():
    up, down = pitch.notes([200.0, 250.0], 0.15), pitch.notes([250.0, 200.0], 0.15)
    keys = [(onset, tone) for onset in "ml" for tone in ("up", "down")]
    asked = [tone for _, tone in keys]
    assert show.audio.tones_heard(keys, [up, down] * 2, [up, down] * 2) == asked
    assert show.audio.tones_heard(keys, [up, down] * 2, [down, up] * 2) == asked[::-1]
    assert show.audio.tones_heard(keys, [up, down] * 2, [up, np.zeros(2400)] * 2)[1] == ""


def test_the_drawings_say_what_they_show(capsys):
    show.diagrams.ch04.codec("the machine")
    show.diagrams.ch04.residual()
    said = capsys.readouterr().out
    assert "the machine" in said and "Level 0 finds the nearest code" in said
