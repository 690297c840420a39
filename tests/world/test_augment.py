"""What may happen to a voice on its way to a microphone: lengths, pitch, formants, loudness, and nothing else."""
import numpy as np
import pytest

from mmcourse.world.augment import augment, change_speed, equalise, perturb_vocal_tract, reverberate


def test_augment_is_finite_level_and_depends_on_the_generator_alone():
    voice = np.sin(np.arange(4000) * 0.3).astype(np.float32) * 0.1
    a, b = (augment(voice, np.random.default_rng(i)) for i in (0, 0))
    assert np.array_equal(a, b) and a.dtype == np.float32 and np.isfinite(a).all() and np.abs(a).max() <= 1
    assert not np.array_equal(a[:3000], augment(voice, np.random.default_rng(1))[:3000])
    assert np.sqrt((a**2).mean()) == pytest.approx(0.1, rel=0.3)


def test_augment_survives_silence():
    assert np.isfinite(augment(np.zeros(2000, np.float32), np.random.default_rng(3))).all()


def test_faster_moves_pitch_and_length():
    tone = np.sin(2 * np.pi * 400 * np.arange(8000) / 8000)
    quick = change_speed(tone, 1.25)
    assert len(quick) == pytest.approx(6400, abs=2)
    assert np.fft.rfftfreq(len(quick), 1 / 8000)[np.abs(np.fft.rfft(quick)).argmax()] == pytest.approx(500, abs=5)


def test_a_mouth_moves_the_formants_and_nothing_else():
    """A buzz of 125 Hz through one resonance at 1,000 Hz: the harmonics stay, the loudest one is another."""
    time = np.arange(8000) / 8000
    harmonics = np.arange(1, 30) * 125
    buzz = sum(np.sin(2 * np.pi * f * time) * np.exp(-((f - 1000) / 200)**2) for f in harmonics)

    def loudest(sound):
        return np.fft.rfftfreq(8000, 1 / 8000)[np.abs(np.fft.rfft(sound)).argmax()]

    same, up, down = (perturb_vocal_tract(buzz, ratio) for ratio in (1.0, 1.25, 0.8))
    np.testing.assert_allclose(same, buzz, atol=1e-9)
    assert loudest(buzz) == 1000 and loudest(up) == pytest.approx(1250, abs=130) and loudest(down) == pytest.approx(800, abs=130)
    for sound in (up, down):
        assert sound.shape == buzz.shape and loudest(sound) % 125 == pytest.approx(0, abs=2)
    assert np.isfinite(perturb_vocal_tract(np.zeros(100), 1.2)).all()


def test_room_and_microphone_keep_the_length():
    noise = np.random.default_rng(0).normal(size=3001)
    for change in (equalise, reverberate):
        out = change(noise, np.random.default_rng(1))
        assert out.shape == noise.shape and not np.allclose(out, noise)
