"""Sound <-> spectrogram: the transform against torch and scipy, the mel scale, phases, loudness, what is no sound."""
import numpy as np
import pytest
import torch

from mmcourse import spectrogram as S
from mmcourse.spectrogram import (
    check_sound,
    dc_offset,
    denormalize_mel,
    griffin_lim,
    istft,
    log_mel,
    mel_filterbank,
    normalize_loudness,
    normalize_mel,
    stft,
)
from mmcourse.world.speech import load_speech


def test_stft_equals_torch():
    x = torch.randn(2, 80 * 50)
    theirs = torch.stft(torch.nn.functional.pad(x, (88, 88)), 256, 80, 256, torch.hann_window(256), center=False,
                        return_complex=True).transpose(1, 2)
    ours = stft(x)                                               # padded to 512: every second bin is one of theirs
    assert ours.shape == (2, 50, 257) and theirs.shape == (2, 50, 129)
    assert torch.allclose(ours[..., ::2], theirs, atol=1e-4)


def test_stft_equals_scipy():
    scipy_signal = pytest.importorskip("scipy.signal")
    x = torch.randn(1, 80 * 40)
    padded = np.pad(x[0].numpy(), 88)
    _, _, theirs = scipy_signal.stft(padded, 8000, "hann", 256, 256 - 80, 512, boundary=None, padded=False, scaling="spectrum")
    assert np.allclose(theirs.T * S.hann(256).sum().item(), stft(x)[0].numpy(), atol=1e-3)


def test_istft_inverts_stft():
    x = torch.randn(3, 80 * 33)
    assert torch.allclose(istft(stft(x)), x, atol=1e-5)


def test_mel_filterbank():
    filters = mel_filterbank(64)
    assert filters.shape == (64, 257) and (filters >= 0).all()
    assert torch.allclose(filters.sum(1), torch.ones(64), atol=1e-5)
    peaks = filters.argmax(1)
    assert (peaks.diff() >= 0).all() and peaks[-1] > 240
    assert S.mel_to_hz(S.hz_to_mel(1234.0)) == pytest.approx(1234.0)


def test_log_mel_of_a_tone_peaks_at_its_band():
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 8000)[None]
    mel = log_mel(tone, mel_filterbank(64))
    assert mel.shape == (1, 64, 100)
    hz = S.mel_to_hz(np.linspace(S.hz_to_mel(40), S.hz_to_mel(4000), 66))[1:-1]
    assert abs(hz[int(mel[0, :, 50].argmax())] - 1000) < 60
    assert log_mel(torch.zeros(1, 800), mel_filterbank(64)).max() == pytest.approx(np.log(S.FLOOR))


def test_griffin_lim_finds_consistent_phases():
    corpus = load_speech(progress=False)
    clip = torch.from_numpy(corpus.clips[0][:3200 - 3200 % 80])[None]
    wanted = stft(clip).abs()

    def error(rounds):
        return ((stft(griffin_lim(wanted, rounds)).abs() - wanted).norm() / wanted.norm()).item()
    assert error(32) < 0.15 and error(32) < 0.5 * error(0)
    assert torch.equal(griffin_lim(wanted), griffin_lim(wanted))                # the same sound each time


def test_normalized_mels_come_back_and_lie_where_a_network_likes_them():
    mel = log_mel(torch.from_numpy(load_speech(progress=False).clips[0][:3200])[None], mel_filterbank(64))
    assert torch.allclose(denormalize_mel(normalize_mel(mel)), mel, atol=1e-5)
    assert -1.2 < normalize_mel(mel).min() and normalize_mel(mel).max() < 3.5 and normalize_mel(mel).std() > 0.5


def test_loudness_is_that_of_the_loud_parts_and_silence_stays_silent():
    tone = 0.3 * torch.sin(torch.arange(8000) * 0.5)
    word = torch.cat([torch.zeros(8000), tone, torch.zeros(8000)]) + 1e-3 * torch.sin(torch.arange(24_000) * 0.9)     # a hum
    out = normalize_loudness(torch.stack([word, word * 0.01, torch.zeros(24_000)]))
    assert out[0, 8000:16_000].square().mean().sqrt().item() == pytest.approx(0.1, rel=0.01), "pauses do not count, nor what hums in them"
    assert torch.allclose(out[0], out[1], atol=1e-6) and not out[2].any()


def test_an_offset_is_one_only_if_it_is_most_of_the_sound():
    tone = 0.1 * torch.sin(torch.arange(8000) * 0.5)
    found = dc_offset(torch.stack([tone + 0.3, tone + 0.01, torch.full((8000,), 0.5), torch.zeros(8000)]))
    assert found.shape == (4, 1) and found[:, 0].tolist() == pytest.approx([0.3, 0.0, 0.5, 0.0], abs=1e-4)


@pytest.mark.parametrize("bad, error, says", [
    (torch.zeros(0), ValueError, "not empty"), (torch.zeros(2, 0), ValueError, "not empty"),
    (torch.zeros(1, 2, 800), ValueError, "mean over the channels"), (torch.tensor(0.5), ValueError, "shape"),
    (torch.tensor([0.1, float("nan")]), ValueError, "NaN"), (torch.tensor([float("inf")]), ValueError, "infinite"),
    (torch.zeros(800, dtype=torch.int16), TypeError, "32768"), (np.zeros(800, np.int16), TypeError, "32768"),
    (torch.zeros(8000, 2), ValueError, r"\(samples, channels\)"), (torch.zeros(9, 8), ValueError, "samples a row"),
    (32767 * torch.ones(800), ValueError, "3.28e\\+04; divide"), (np.full(800, 1e300), ValueError, "1e\\+300")])
def test_what_is_no_sound_gets_a_clear_error(bad, error, says):
    with pytest.raises(error, match=says):
        check_sound(bad)


def test_sound_comes_as_tensor_or_array_with_or_without_a_batch():
    for samples in (torch.zeros(80), np.zeros(80), torch.zeros(1, 80, dtype=torch.float64), np.zeros((1, 80), np.float32)):
        assert check_sound(samples).shape == (1, 80) and check_sound(samples).dtype == torch.float32
