"""Chapter 04's studies: frames of other lengths, probes that find what is there, sounds on their way without tokens."""
import numpy as np
import pytest
import torch

from mmcourse.codec import AudioCodec
from mmcourse.judges import pitch
from mmcourse.spectrogram import log_mel
from mmcourse.studies import _ch04, ch04_controls, ch04_limits, ch04_probes, ch04_sweep, ch04_vocoder
from mmcourse.world.scene import WORDS

# ---- frames of other lengths


def with_random_codes(codec: AudioCodec) -> AudioCodec:
    for book in codec.codebooks:
        book.normal_()
    return codec.eval()


@pytest.mark.parametrize("milliseconds, frames", [(10, 80), (20, 40), (40, 20)])
def test_the_sweeps_codec_has_the_frames_it_is_asked_for(milliseconds, frames):
    codec = with_random_codes(ch04_sweep.FrameCodec(milliseconds, width=8, dim=4, codebook_size=16, levels=1))
    ids = codec.encode(torch.randn(6400) * 0.1)
    assert ids.shape == (1, frames, 1) and codec.decode(ids).shape == (1, 6400)
    assert codec.decode_mel(ids).shape == (1, 64, 80)
    with pytest.raises(ValueError, match="30"):
        ch04_sweep.FrameCodec(30)


def test_forty_milliseconds_are_the_chapters_codec():
    ours = with_random_codes(ch04_sweep.FrameCodec(40, width=8, dim=4, codebook_size=16, levels=2))
    plain = AudioCodec(width=8, dim=4, codebook_size=16, levels=2).eval()
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(3210) * 0.1
    assert torch.equal(ours.encode(x), plain.encode(x)) and len(plain.encode(x).unique()) > 2
    assert torch.equal(ours.decode_mel(plain.encode(x)), plain.decode_mel(plain.encode(x)))


def test_the_head_has_what_the_rows_depend_on():
    plan = ch04_sweep.head(ch04_sweep.Plan())["plan"]
    assert plan["clips"] == 128 and plan["heard"] in WORDS and "counted" not in plan


# ---- sounds that are measured

def test_clips_in_a_row_are_cut_to_their_own_length():
    clips = [np.full(3, 1.0), np.full(2, 2.0), np.full(4, 3.0)]
    sound = torch.arange(15.0).view(3, 5)
    pairs = _ch04.joined_pairs(clips, sound, 2)
    assert [list(true) for true, _ in pairs] == [[1, 1, 1, 2, 2], [3, 3, 3, 3]]
    assert [list(decoded) for _, decoded in pairs] == [[0, 1, 2, 5, 6], [10, 11, 12, 13]]


def test_true_clips_are_the_ceiling_and_silence_has_no_pesq():
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq")

    class Deaf:
        def accuracy(self, sound, words):
            return 0.25
    clips, words = _ch04.held_out_clips(1, "elephant")
    assert words[-1] == "elephant" and len(clips) == len(_ch04.held_out_voices()) == 8
    from mmcourse.judges.hearing import stack
    row = _ch04.judge_sound(clips, words, stack(clips, 8000), Deaf())
    assert row["stoi"] > 0.999 and row["pesq"] > 4 and row["words"] == 0.25
    assert _ch04.judge_sound(clips, words, torch.zeros(8, 8000), Deaf())["pesq"] is None


def test_the_new_words_are_new():
    assert not set(_ch04.NEW_WORDS) & set(WORDS) and len(set(_ch04.NEW_WORDS)) == 20


# ---- probes

def a_part(x, y, groups=8):
    rows = torch.arange(len(x))
    return ch04_probes.Part(x, y, rows // 4, rows // 4 % groups)


def test_probes_find_what_is_there_and_nothing_else():
    x, noise = torch.randn(800, 8), torch.randn(800, 8)
    y = 100 + x[:, :1] * 2 - x[:, 1:2]                  # far from zero: a probe learns the spread, not the mean
    right = (x[:, 0] > 0).long()
    for truth, classes, least, most in ((y, False, 0.9, 0.1), (torch.nn.functional.one_hot(right).float(), True, 0.9, 0.65)):
        found = ch04_probes.ask(a_part(x[:400], truth[:400]), a_part(x[400:], truth[400:]), classes, (25, 100))
        assert min(found["linear"], found["net"]) > least - 0.2 and found[found["answers"]] > least
        found = ch04_probes.ask(a_part(noise[:400], truth[:400]), a_part(x[400:], truth[400:]), classes, (25, 100))
        assert max(found["linear"], found["net"]) < most


def test_what_is_chosen_is_chosen_on_a_part_of_the_training_groups():
    """Forty features, forty-five rows to learn from: without a penalty the probe would learn by heart."""
    x = torch.randn(460, 40)
    y = x[:, :1] + torch.randn(460, 1)
    found = ch04_probes.ask(a_part(x[:60], y[:60], 4), a_part(x[60:], y[60:], 4), False, (1, 5))
    assert found["penalty"] >= 0.1 and found["penalty"] in ch04_probes.STRENGTHS and found["steps"] in (1, 5)


def test_the_share_of_variance_by_hand():
    view, n = (lambda d: d["x"]), 80

    def clip():
        x = torch.randn(n, 3)
        facts = np.stack([x[:, 0].numpy() * 3 + 1, np.random.randn(n), np.full(n, np.nan)], 1)
        facts[:, 2] = facts[:, 0]
        facts[:5] = np.nan                              # silence
        return {"x": x, "facts": facts}
    clips, voices = [clip() for _ in range(10)], ["a", "b", "c", "d", "e"] * 2

    def found(fact):
        return ch04_probes.ask(*(ch04_probes.of_frames(view, part, voices[:len(part)], fact)
                                 for part in (clips[:6], clips[6:])), False, (25,))
    assert found("pitch")["linear"] > 0.95 and found("loudness")["linear"] > 0.95
    assert abs(found("brightness")["linear"]) < 0.2
    errors = found("brightness")["errors"]
    assert errors[0].shape == (4,) and ch04_probes.score(errors) == pytest.approx(1 - errors[0].sum() / errors[1].sum())


def test_a_gain_has_an_interval_and_a_sign():
    ones = np.ones(200)
    wrong = (np.arange(200) % 2).astype(float), (np.arange(200) % 4 == 3).astype(float)
    mean, low, high = ch04_probes.gain((wrong[1], ones), (wrong[0], ones))
    assert mean == 0.25 and 0.15 < low < 0.25 < high < 0.35
    assert ch04_probes.gain((wrong[0], ones), (wrong[0], ones)) == [0, 0, 0]


def test_shuffling_keeps_the_tokens_and_breaks_the_order():
    described = [{"codes": torch.arange(4.0 * k, 4 * k + 4).view(4, 1, 1)} for k in range(5)]
    mixed = ch04_probes.shuffled(described)
    before, after = (torch.cat([d["codes"] for d in part]).flatten() for part in (described, mixed))
    assert torch.equal(before, after.sort().values) and not torch.equal(before, after)


def test_facts_of_a_known_sound():
    sound = pitch.notes([200.0], 0.64)
    mel = log_mel(torch.from_numpy(sound)[None], AudioCodec(width=8).filters)[0].numpy()
    found = ch04_probes.facts(mel, sound)
    assert found.shape == (16, 3)
    assert np.abs(found[3:12, 0] - np.log2(200)).max() < 0.02 and (np.diff(found[3:12, 2]) < 0).all()      # it fades


def test_another_codec_makes_all_untrue_but_what_needs_none():
    result = {"codec_sha256": "old", "views": {"level 0": {}}, "chance": {}, "rates": {"8 kHz": [1]}, "cpu_minutes": 2}
    ch04_probes.outdated(result, {"codec_sha256": "old"})
    assert "views" in result
    ch04_probes.outdated(result, {"codec_sha256": "new"})
    assert result == {"codec_sha256": "new", "rates": {"8 kHz": [1]}}


# ---- the route without tokens

def test_the_route_without_tokens():
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(3200) / 8000)[None]
    inside = slice(400, -400)
    exact = ch04_limits.through_mel(tone, None, true_phase=True)
    assert (exact - tone)[:, inside].abs().max() < 1e-4, "all amplitudes and true phases: nothing is lost"
    for window in (256, 512):
        assert ch04_limits.through_mel(tone, 64, window).shape == tone.shape


def test_every_second_sound_of_five_clips():
    clips = [np.full(2, float(i), np.float32) for i in range(17)]
    rows = ch04_limits.in_a_row(clips)
    assert len(rows) == 2 and all(len(row) == 5 * (2 + ch04_limits.GAP) for row in rows)
    assert {float(v) for v in rows[1]} == {0.0, 10.0, 11.0, 12.0, 13.0, 14.0}


def test_without_recordings_of_people_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(ch04_limits, "load_human_digits", lambda: None)
    with pytest.raises(SystemExit, match="mmcourse data human-digits"):
        ch04_limits.people(ch04_limits.Plan(), ch04_limits.SETS[0])


# ---- one thing changed at a time

@pytest.mark.parametrize("window, bands", [(256, 64), (512, 64), (256, 128), (512, 128)])
def test_a_codec_on_other_frames_hears_the_same_tone(window, bands):
    codec = with_random_codes(ch04_controls.WindowCodec(window, width=8, bands=bands))
    tone = 0.1 * torch.from_numpy(pitch.notes([220.0], 0.4))[None] / 0.1
    features = codec.features(tone)
    assert features.shape == (1, bands, 40) and codec.filters.sum(1).min() > 0.99
    true, made = ch04_controls.ways(codec, [tone[0].numpy()], (1, 4))
    assert set(made) == {"no tokens", "nothing rounded", "1 level", "4 levels"}
    assert ch04_controls.pitch_kept(true, made["no tokens"])["right"] > 0.9


def test_the_window_of_32_ms_is_the_chapters():
    """The same picture, half a step of the frames apart."""
    ours, plain = ch04_controls.WindowCodec(256, width=8), AudioCodec(width=8)
    noise = 0.1 * torch.randn(1, 8000)
    assert (ours.features(noise).mean() - plain.features(noise).mean()).abs() < 0.02


def test_arms_differ_in_one_thing():
    assert list(ch04_controls.ARMS)[0] == "as it is" and ch04_controls.ARMS["as it is"] == {}
    assert all(len(arm) == 1 for name, arm in ch04_controls.ARMS.items() if name != "as it is")


def test_right_pitch_is_less_than_any_pitch():
    low, high = pitch.notes([120.0]), pitch.notes([240.0])
    assert ch04_controls.pitch_kept([low], [low]) == {"pitched": 1.0, "right": 1.0}
    octave = ch04_controls.pitch_kept([low], [high])
    assert octave["pitched"] > 0.9 and octave["right"] < 0.1
    assert ch04_controls.pitch_kept([low, np.zeros(3200)], [low, low]) == {"pitched": 1.0, "right": 1.0}     # silence has none


# ---- the vocoder

def test_frames_that_overlap_add_up_to_the_sound():
    x = torch.randn(1, 80 * 30)
    window = ch04_vocoder.hann(ch04_vocoder.WINDOW)
    margin = (ch04_vocoder.WINDOW - ch04_vocoder.HOP) // 2
    padded = torch.nn.functional.pad(x, (margin, margin))
    frames = padded.unfold(1, ch04_vocoder.WINDOW, ch04_vocoder.HOP) * window
    torch.testing.assert_close(ch04_vocoder.overlap_add(frames)[:, 200:-200], x[:, 200:-200], atol=1e-4, rtol=1e-4)


def test_the_distance_of_spectra_is_zero_for_the_same_sound_and_learns():
    x = 0.1 * torch.randn(2, 1600)
    assert ch04_vocoder.spectral_distance(x, x) == 0
    assert ch04_vocoder.spectral_distance(x.roll(7), x) < ch04_vocoder.spectral_distance(3 * x, x)     # phases count little
    model = ch04_vocoder.Vocoder(width=8)
    sound = model(torch.randn(2, 64, 20))
    assert sound.shape == (2, 1600)
    ch04_vocoder.loss(model, torch.randn(2, 64, 20), x).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
