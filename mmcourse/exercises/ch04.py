"""Exercises of chapter 04: frames, the mel filterbank, Griffin-Lim, bits a second, residual quantization,
pitch."""
import math

import numpy as np
import torch

from mmcourse.exercises import register
from mmcourse.quantize import nearest_code
from mmcourse.spectrogram import FFT, griffin_lim, hz_to_mel, istft, mel_filterbank, mel_to_hz, stft
from mmcourse.world.speech import SAMPLE_RATE

# ---------------------------------------------------------------- cutting a sound into frames


def frames(samples: torch.Tensor, window: int, hop: int) -> torch.Tensor:
    """(n,) -> (count, window): pieces of `window` samples that begin every `hop` samples; a short rest is
    dropped."""
    return samples.unfold(0, window, hop)


def _side_by_side(samples, window, hop):
    return samples[:len(samples) // window * window].view(-1, window)


def _one_too_few(samples, window, hop):
    return torch.stack([samples[i:i + window] for i in range(0, len(samples) - window, hop)])


def _hop_and_window_swapped(samples, window, hop):
    return samples.unfold(0, hop, hop)


@register("04.frames", reference=frames, minutes=5,
          wrong=[_side_by_side, _one_too_few, _hop_and_window_swapped],
          hint="Frame k is samples[k * hop : k * hop + window]; the last frame may end on the last sample.")
def check_frames(fn):
    for n, window, hop in ((10, 4, 2), (11, 4, 2), (7, 7, 3), (1000, 256, 80), (12, 3, 3)):
        samples = torch.arange(float(n))
        count = (n - window) // hop + 1
        out = fn(samples, window, hop)
        case = f"{n} samples, window {window}, hop {hop}"
        assert tuple(out.shape) == (count, window), (
            f"{case}: the shape must be {(count, window)}, not {tuple(out.shape)}")
        for k in range(count):
            assert torch.equal(out[k], samples[k * hop:k * hop + window]), (
                f"{case}: frame {k} must begin with sample {k * hop}, but it is {out[k][:4].tolist()}...")


# ---------------------------------------------------------------- triangles that hear like an ear

def _evenly_in_hertz(bands, low=40.0, high=4000.0):
    edges = np.linspace(low, high, bands + 2)
    return _triangles(edges)


def _triangles(edges, normalize=True):
    hz = np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)
    left, peak, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    out = np.maximum(0, np.minimum((hz - left) / (peak - left), (right - hz) / (right - peak)))
    return torch.tensor(out / (out.sum(1, keepdims=True) if normalize else 1), dtype=torch.float32)


def _mel_edges(bands, low=40.0, high=4000.0):
    return mel_to_hz(np.linspace(hz_to_mel(low), hz_to_mel(high), bands + 2))


def _not_normalized(bands, low=40.0, high=4000.0):
    return _triangles(_mel_edges(bands, low, high), normalize=False)


def _boxes(bands, low=40.0, high=4000.0):
    edges, hz = _mel_edges(bands, low, high), np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)
    out = (hz > edges[:-2, None]) & (hz < edges[2:, None])
    return torch.tensor(out / out.sum(1, keepdims=True), dtype=torch.float32)


@register("04.mel_filterbank", reference=mel_filterbank, minutes=15, difficulty=2,
          wrong=[_evenly_in_hertz, _not_normalized, _boxes],
          hint="bands + 2 edges, evenly spaced in mel; triangle b rises from edge b to b + 1 and falls to b "
               "+ 2.")
def check_mel_filterbank(fn):
    for bands in (8, 40, 64):
        out = torch.as_tensor(fn(bands)).float()
        assert tuple(out.shape) == (bands, 257), (
            f"{bands} bands: the shape must be {(bands, 257)}, not {tuple(out.shape)}")
        sums = out.sum(1)
        assert torch.allclose(sums, torch.ones(bands), atol=1e-3), (
            f"{bands} bands: each row must sum to 1, but row {int((sums - 1).abs().argmax())} sums to "
            f"{sums[(sums - 1).abs().argmax()]:.3f}")
        edges = _mel_edges(bands)
        hz, b = np.linspace(0, 4000, 257), bands // 2
        middle = float((out[b].double() * torch.tensor(hz)).sum())
        right = float((mel_filterbank(bands)[b].double() * torch.tensor(hz)).sum())
        assert abs(middle - right) < 3, (
            f"{bands} bands: band {b} should be centred near {right:.0f} Hz (evenly spaced in mel), it is at "
            f"{middle:.0f} Hz")
        worst = (out - mel_filterbank(bands)).abs().max().item()
        assert worst < 1e-4, (f"{bands} bands: a row is not the triangle from {edges[b]:.0f} over "
                              f"{edges[b + 1]:.0f} to {edges[b + 2]:.0f} Hz; the largest difference is "
                              f"{worst:.4f}")


# ---------------------------------------------------------------- sound from amplitudes alone

def _random_phases(amplitude, rounds=32):
    noise = 2 * math.pi * torch.rand(amplitude.shape)
    return istft(torch.polar(amplitude, noise))


def _phase_zero(amplitude, rounds=32):
    return istft(amplitude.to(torch.complex64))


def _keeps_the_amplitudes_that_come_back(amplitude, rounds=32):
    spectrum = torch.polar(amplitude, 2 * math.pi * torch.rand(amplitude.shape))
    for _ in range(rounds):
        spectrum = stft(istft(spectrum))
    return istft(spectrum)


@register("04.griffin_lim", reference=griffin_lim, minutes=15, difficulty=2,
          wrong=[_random_phases, _phase_zero, _keeps_the_amplitudes_that_come_back],
          hint="In each round: spectrum = stft(istft(amplitude * phase)), then phase = spectrum / "
               "|spectrum|.")
def check_griffin_lim(fn):
    t = torch.arange(4000) / SAMPLE_RATE
    voice = sum(torch.sin(2 * math.pi * 120 * k * (t + 0.05 * t**2)) / k for k in range(1, 12))[None] * 0.1
    wanted = stft(voice).abs()
    out = fn(wanted, 32)
    assert tuple(out.shape) == (1, 4000), f"50 frames make 4,000 samples, (1, 4000), not {tuple(out.shape)}"
    assert out.isfinite().all(), (
        "the sound has NaN or infinite samples: where |spectrum| is 0, do not divide by it")
    error = ((stft(out).abs() - wanted).norm() / wanted.norm()).item()
    assert error < 0.25, ("after 32 rounds the sound's own amplitudes should be within 25 % of the wanted "
                          f"ones, they are {error:.0%} away: keep the phases that come back, put the "
                          "amplitudes in again")


# ---------------------------------------------------------------- what a second of sound costs

def bits_per_second(frame_rate: float, codebook_size: int, levels: int) -> float:
    """Nominal bits a second: a code of K possibilities is worth log2 K bits."""
    return frame_rate * levels * math.log2(codebook_size)


def _forgets_levels(frame_rate, codebook_size, levels):
    return frame_rate * math.log2(codebook_size)


def _one_big_book(frame_rate, codebook_size, levels):
    return frame_rate * math.log2(codebook_size * levels)


def _natural(frame_rate, codebook_size, levels):
    return frame_rate * levels * math.log(codebook_size)


@register("04.bits_per_second", reference=bits_per_second, minutes=3,
          wrong=[_forgets_levels, _one_big_book, _natural],
          hint="One code chooses 1 of K: log2 K bits. A frame has one code for each level.")
def check_bits_per_second(fn):
    cases = [(25, 512, 4, 900), (25, 512, 1, 225), (75, 1024, 8, 6000), (8000, 256, 1, 64000)]
    for rate, size, levels, bits in cases:
        said = fn(rate, size, levels)
        assert abs(said - bits) < 1e-6, (
            f"{rate} frames a second, {levels} codes of {size}: {bits} bits a second, not {said}")


# ---------------------------------------------------------------- level by level

def quantize_residual(z: torch.Tensor, codebooks: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Each level takes the code nearest to what the levels before it left over.

    (N, dim) vectors and one (K, dim) codebook for each level -> ids (N, levels), the sum of the chosen
    codes (N, dim).
    """
    rest, ids = z, []
    for codes in codebooks:
        index = nearest_code(rest, codes)
        ids.append(index)
        rest = rest - codes[index]
    return torch.stack(ids, 1), z - rest


def _quantizes_the_same_again(z, codebooks):
    ids = [nearest_code(z, codes) for codes in codebooks]
    return torch.stack(ids, 1), sum(codes[i] for codes, i in zip(codebooks, ids))


def _last_level_only(z, codebooks):
    ids, total = quantize_residual(z, codebooks)
    return ids, codebooks[-1][ids[:, -1]]


def _farthest(z, codebooks):
    rest, ids = z, []
    for codes in codebooks:
        ids.append((rest @ codes.T).argmax(1))  # the largest product is not the nearest code
        rest = rest - codes[ids[-1]]
    return torch.stack(ids, 1), z - rest


@register("04.quantize_residual", reference=quantize_residual, minutes=15, difficulty=2,
          wrong=[_quantizes_the_same_again, _last_level_only, _farthest],
          hint="Keep `rest`, what is left to explain. Each level: find its nearest code, note the index, "
               "subtract.")
def check_quantize_residual(fn):
    z = torch.tensor([[1.0, 2.0], [-1.0, 0.4]])
    books = [torch.tensor([[1.0, 1.0], [-1.0, 0.0]]), torch.tensor([[0.0, 0.5], [0.0, 1.0]])]
    ids, total = fn(z, books)
    assert torch.as_tensor(ids).tolist() == [[0, 1], [1, 0]], (
        f"for z = {z.tolist()} the ids must be [[0, 1], [1, 0]] (row: vector, column: level), not "
        f"{ids.tolist()}")
    assert torch.allclose(total, torch.tensor([[1.0, 2.0], [-1.0, 0.5]])), (
        f"the sum of the chosen codes must be [[1, 2], [-1, 0.5]], not {total.tolist()}")
    for levels in (1, 3):
        z, books = torch.randn(50, 6), [torch.randn(16, 6) * 2.0**-k for k in range(levels)]
        ids, total = fn(z, books)
        right, right_total = quantize_residual(z, books)
        assert tuple(ids.shape) == (50, levels), (
            f"{levels} levels: the ids have the shape (50, {levels}), not {tuple(ids.shape)}")
        wrong = (ids != right).any(1).nonzero().flatten().tolist()
        assert not wrong, (f"{levels} levels of 16 random codes: vector {wrong[0]} gets "
                           f"{ids[wrong[0]].tolist()}, nearest in turn are {right[wrong[0]].tolist()}")
        assert torch.allclose(total, right_total, atol=1e-5), (
            f"{levels} levels: the second result must be the sum of the codes")


# ---------------------------------------------------------------- how high is a voice?

def pitch(samples: torch.Tensor, low: float = 70.0, high: float = 500.0) -> float:
    """The pitch of (n,) samples at 8 kHz in Hz: the shift from 8000 / high to 8000 / low at which they
    resemble themselves most.
    """
    shifts = range(math.ceil(SAMPLE_RATE / high), int(SAMPLE_RATE / low) + 1)
    return SAMPLE_RATE / max(shifts, key=lambda k: float(samples[:-k] @ samples[k:]))


def _loudest_frequency(samples, low=70.0, high=500.0):
    # an overtone may be the loudest
    return float(torch.fft.rfft(samples).abs().argmax()) * SAMPLE_RATE / len(samples)


def _any_shift(samples, low=70.0, high=500.0):
    shifts = range(1, int(SAMPLE_RATE / low) + 1)
    return SAMPLE_RATE / max(shifts, key=lambda k: float(samples[:-k] @ samples[k:]))


def _the_shift_itself(samples, low=70.0, high=500.0):
    return SAMPLE_RATE / pitch(samples, low, high)


@register("04.pitch", reference=pitch, minutes=10, difficulty=2,
          wrong=[_loudest_frequency, _any_shift, _the_shift_itself],
          hint="For a shift k: samples[:-k] @ samples[k:]. Try all k from 8000 / high to 8000 / low, keep "
               "the best, return Hz.")
def check_pitch(fn):
    t = torch.arange(800) / SAMPLE_RATE
    for hz, weights in ((100.0, (1, 1, 1, 1)), (160.0, (0.2, 1, 0.5, 0.5)), (250.0, (1, 0.5, 0.3, 0.2)),
                        (125.0, (0, 1, 1, 1))):
        samples = sum(w * torch.sin(2 * math.pi * hz * (k + 1) * t + k) for k, w in enumerate(weights))
        said = float(fn(samples + 0.02 * torch.randn(800)))
        assert abs(said - hz) < 0.03 * hz, (
            f"four waves of {hz:.0f}, {2 * hz:.0f}, {3 * hz:.0f} and {4 * hz:.0f} Hz, as strong as "
            f"{weights}, repeat {hz:.0f} times a second; the answer was {said:.1f} Hz")
    samples = torch.sin(2 * math.pi * 200 * t)
    said = float(fn(samples, 70.0, 130.0))
    assert abs(said - 100) < 3, (
        f"between 70 and 130 Hz, a wave of 200 Hz repeats best at 100 Hz; the answer was {said:.1f} Hz")
