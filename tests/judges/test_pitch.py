"""Pitch on sounds whose answer is known, and clear errors for what has none."""
import numpy as np
import pytest

from mmcourse.judges import pitch


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
