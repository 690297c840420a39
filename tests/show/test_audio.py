"""Pitch, probes and the figures of chapter 04: right on sounds whose answer is known, clear on bad input."""
import json

import numpy as np
import pytest
import torch

from mmcourse import show
from mmcourse.codec import AudioCodec
from mmcourse.judges import pitch
from mmcourse.paths import RESULTS
from mmcourse.studies import ch04_probes, ch04_sweep

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    codec = AudioCodec(width=16, dim=8, codebook_size=32).eval()
    for quantizer in codec.quantizer.levels:
        quantizer.codebook.normal_()
    return codec


@pytest.mark.parametrize("hz", [80.0, 123.4, 220.0, 440.0])
def test_the_pitch_of_a_note(hz):
    track = pitch.pitch_track(pitch.notes([hz], 0.6))
    inside = track[8:-8]
    assert np.isfinite(inside).all() and np.abs(pitch.cents(inside, hz)).max() < 10


def test_no_pitch_in_noise_and_silence():
    rng = np.random.default_rng(0)
    assert np.isfinite(pitch.pitch_track(rng.normal(size=8000))).mean() < 0.1
    assert not np.isfinite(pitch.pitch_track(np.zeros(800))).any()
    assert len(pitch.pitch_track(np.zeros(1))) == 1


def test_a_missing_fundamental_is_heard():
    t = np.arange(4000) / 8000
    sound = sum(np.sin(2 * np.pi * 150 * k * t) for k in (2, 3, 4, 5))
    assert np.abs(pitch.cents(pitch.pitch_track(sound)[5:-5], 150)).max() < 15


def test_compare_counts_what_changed():
    a = pitch.notes([200.0, 300.0])
    assert pitch.compare(a, a) == {"cents": 0.0, "off": 0.0, "voiced": 1.0}
    higher = pitch.notes([200.0 * 2 ** (2 / 12), 300.0 * 2 ** (2 / 12)])
    found = pitch.compare(a, higher)
    assert found["cents"] == pytest.approx(200, abs=5) and found["off"] > 0.9
    gone = pitch.compare(a, np.zeros(len(a)))
    assert gone["voiced"] == 0 and np.isnan(gone["cents"])


@pytest.mark.parametrize("bad", [np.zeros((2, 800)), np.zeros(0)])
def test_pitch_bad_input(bad):
    with pytest.raises(ValueError, match="one channel"):
        pitch.pitch_track(bad)
    with pytest.raises(ValueError, match="between low and high"):
        pitch.pitch_track(np.zeros(800), 300, 200)


def test_a_tone_is_known_by_its_contour():
    t = np.arange(4000) / 8000

    def glide(cents):
        hz = 200 * 2 ** (cents * t / 0.5 / 1200)
        return sum(np.sin(2 * np.pi * k * np.cumsum(hz) / 8000) / k for k in range(1, 8))
    known = {name: [show.audio.contour(glide(c))] for name, c in (("rising", 500), ("level", 0), ("falling", -500))}
    assert show.audio.nearest_tone(show.audio.contour(glide(400)), known) == "rising"
    assert show.audio.nearest_tone(show.audio.contour(glide(-400)), known) == "falling"
    assert show.audio.contour(np.zeros(4000)) is None and show.audio.nearest_tone(None, known) == ""


def test_probes_find_what_is_there_and_nothing_else():
    torch.manual_seed(0)
    x, noise = torch.randn(600, 8), torch.randn(600, 8)
    y = x[:, :1] * 2 - x[:, 1:2]
    said = ch04_probes.linear(x[:400], y[:400], x[400:])
    assert (said - y[400:]).abs().mean() < 0.1
    said = ch04_probes.linear(noise[:400], y[:400], x[400:])
    assert (said - y[400:]).square().mean() > 0.8 * y.var()
    labels = (x[:, 0] > 0).long().tolist()
    assert min(ch04_probes.accuracy(x[:400], labels[:400], x[400:], labels[400:])) > 0.9
    assert max(ch04_probes.accuracy(noise[:400], labels[:400], x[400:], labels[400:])) < 0.65


def test_shuffling_keeps_the_tokens_and_breaks_the_order():
    described = [{"codes": torch.arange(4.0 * k, 4 * k + 4).view(4, 1, 1)} for k in range(5)]
    mixed = ch04_probes.shuffled(described)
    before, after = (torch.cat([d["codes"] for d in part]).flatten() for part in (described, mixed))
    assert torch.equal(before, after.sort().values) and not torch.equal(before, after)


def test_facts_of_a_known_sound():
    sound = pitch.notes([200.0], 0.64)
    mel = ch04_probes.log_mel(torch.from_numpy(sound)[None], AudioCodec(width=8).filters)[0].numpy()
    found = ch04_probes.facts(mel, sound)
    assert found.shape == (16, 3)
    assert np.abs(found[3:12, 0] - np.log2(200)).max() < 0.02 and (np.diff(found[3:12, 2]) < 0).all()      # it fades


@pytest.mark.parametrize("milliseconds, frames", [(10, 80), (20, 40), (40, 20)])
def test_the_sweeps_codec_has_the_frames_it_is_asked_for(milliseconds, frames):
    torch.manual_seed(0)
    codec = ch04_sweep.FrameCodec(milliseconds, width=8, dim=4, codebook_size=16, levels=1).eval()
    codec.quantizer.levels[0].codebook.normal_()
    ids = codec.encode(torch.randn(6400) * 0.1)
    assert ids.shape == (1, frames, 1) and codec.decode(ids).shape == (1, 6400)
    assert codec.decode_mel(ids).shape == (1, 64, 80)
    with pytest.raises(ValueError, match="30"):
        ch04_sweep.FrameCodec(30)


def test_forty_milliseconds_are_the_chapters_codec():
    torch.manual_seed(0)
    ours = ch04_sweep.FrameCodec(40, width=8, dim=4, codebook_size=16, levels=2).eval()
    plain = AudioCodec(width=8, dim=4, codebook_size=16, levels=2).eval()
    plain.load_state_dict(ours.state_dict())
    for a in plain.quantizer.levels:
        a.codebook.normal_()
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(3200) * 0.1
    assert torch.equal(ours.encode(x), plain.encode(x))
    assert torch.equal(ours.decode_mel(plain.encode(x)), plain.decode_mel(plain.encode(x)))


def test_sounds_survive_the_results_file():
    x = pitch.notes([300.0])
    back = show.audio.unpack(ch04_sweep.small_sound(x))
    assert back.shape == x.shape and np.abs(back - x).max() < 0.02


def test_the_explorer(small, capsys):
    sound = pitch.notes([200.0], 0.4)
    show.audio.explore(small, sound, 3, 4)
    assert "Frame 3" in capsys.readouterr().out
    assert show.audio.alone(small, torch.tensor([1, 2])).shape == (10 * 320,)
    for frame, levels in ((10, 1), (-1, 1), (0, 0), (0, 5)):
        with pytest.raises(ValueError, match="levels 1..4"):
            show.audio.explore(small, sound, frame, levels)


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
    import types

    import soundfile
    soundfile.write(tmp_path / "a.wav", np.stack([pitch.notes([200.0])] * 2, 1), 44100)
    chosen = {"name": "a.wav", "content": memoryview((tmp_path / "a.wav").read_bytes())}
    assert show.audio.uploaded(types.SimpleNamespace(value=())) is None
    assert show.audio.uploaded(types.SimpleNamespace(value=(chosen,))).dtype == np.float32


@pytest.mark.parametrize("name", ["ch04_sweep", "ch04_probes", "ch04_peers", "ch04_vocoder"])
def test_the_results_can_be_shown(name, capsys):
    found = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    if name == "ch04_sweep":
        assert set(found["runs"]) <= set(ch04_sweep.configurations())
        assert len(show.audio.sweep_rows(found)) == len(found["runs"]) + 2 + 2
        show.audio.sweep_plot(found, "seen")
    elif name == "ch04_probes":
        assert {"level 0", "levels 0 to 1", "levels 0 to 3", "not rounded", "log-mel"} <= set(found["views"])
        show.audio.probe_plot(found, "seen")
        best = {view: max(facts["brightness"]) for view, facts in found["views"].items()}
        assert best["all levels, shuffled"] < 0.1 < best["level 0"] < best["not rounded"]
    elif name == "ch04_peers":
        show.audio.peer_plot(found, "seen")
        for rows in (s["rows"] for s in found["sets"].values()):
            assert rows["uncoded"]["stoi"] == pytest.approx(1, abs=1e-3)
            assert rows["1 level"]["stoi"] < rows["4 levels"]["stoi"] < rows["log-mel, no tokens"]["stoi"]
    else:
        assert len(show.audio.vocoder_rows(found)) == 4
        return
    assert "seen" in capsys.readouterr().out


def test_gains_of_the_sweep():
    def run(ms, codes, stoi):
        return {"milliseconds": ms, "codebook_size": codes, "levels": 1, "rows": [{"stoi": stoi}]}
    rows = [run(40, 1024, 0.5), run(40, 8192, 0.6), run(20, 1024, 0.7), run(20, 8192, 0.8)]
    frame, book, one = show.audio.sweep_gains({"runs": dict(enumerate(rows))})
    assert (round(frame, 6), round(book, 6), len(one)) == (0.2, 0.1, 4)


def test_rows_of_what_limits_the_codec():
    row = {"stoi": 0.9, "pesq": 2.5, "pesq_interval": [2.4, 2.6], "words": 0.8, "words_minus_true": -0.05,
           "words_interval": [-0.08, -0.02], "pitch_kept": 0.5}
    found = show.audio.limit_rows({"rows": {"4 levels": row}})
    assert found[0]["words lost"] == "5.0% (2.0% to 8.0%)" and found[0]["PESQ"] == "2.50 (2.40 to 2.60)"


def test_tones_heard_of_notes_that_rise_and_fall():
    from mmcourse.judges.pitch import notes
    up, down = notes([200.0, 250.0], 0.15), notes([250.0, 200.0], 0.15)
    keys = [(onset, tone) for onset in "ml" for tone in ("up", "down")]
    assert show.audio.tones_right(keys, [up, down] * 2, [up, down] * 2) == 1
    assert show.audio.tones_right(keys, [up, down] * 2, [down, up] * 2) == 0
