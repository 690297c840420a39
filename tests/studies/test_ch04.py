"""Chapter 04's studies: frames of other lengths, probes that find what is there, sounds on their way without tokens."""
import numpy as np
import pytest
import torch

from mmcourse.codec import AudioCodec
from mmcourse.judges import pitch
from mmcourse.spectrogram import log_mel
from mmcourse.studies import _ch04, ch04_limits, ch04_probes, ch04_sweep, ch04_vocoder
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

def test_probes_find_what_is_there_and_nothing_else():
    x, noise = torch.randn(600, 8), torch.randn(600, 8)
    y = x[:, :1] * 2 - x[:, 1:2]
    said = ch04_probes.linear(x[:400], y[:400], x[400:])
    assert (said - y[400:]).abs().mean() < 0.1
    said = ch04_probes.linear(noise[:400], y[:400], x[400:])
    assert (said - y[400:]).square().mean() > 0.8 * y.var()
    labels = (x[:, 0] > 0).long().tolist()
    assert min(ch04_probes.accuracy(x[:400], labels[:400], x[400:], labels[400:])) > 0.9
    assert max(ch04_probes.accuracy(noise[:400], labels[:400], x[400:], labels[400:])) < 0.65


def test_the_share_of_variance_by_hand():
    view, n = (lambda d: d["x"]), 80

    def clip():
        x = torch.randn(n, 3)
        facts = np.stack([x[:, 0].numpy() * 3 + 1, np.random.randn(n), np.full(n, np.nan)], 1)
        facts[:, 2] = facts[:, 0]
        facts[:5] = np.nan                              # silence
        return {"x": x, "facts": facts}
    found = ch04_probes.r2([clip() for _ in range(6)], [clip() for _ in range(3)], view)
    assert found["pitch"][0] > 0.95 and found["loudness"][0] > 0.95 and abs(found["brightness"][0]) < 0.2


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
