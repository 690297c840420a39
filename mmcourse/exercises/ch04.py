"""Exercises of chapter 04: frames, the mel filterbank, Griffin-Lim, bits a second, residual quantization
(of points, and of the shipped codec's own vectors), pitch."""
import math

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.exercises import register
from mmcourse.judges.pitch import notes
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


@register("04.frames", reference=frames, minutes=3,
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


@register("04.mel_filterbank", reference=mel_filterbank, minutes=12, difficulty=2,
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


def _divides_by_zero(amplitude, rounds=32):
    phase = torch.polar(torch.ones_like(amplitude), 2 * math.pi * torch.rand(amplitude.shape))
    for _ in range(rounds):
        spectrum = stft(istft(amplitude * phase))
        phase = spectrum / spectrum.abs()
    return istft(amplitude * phase)


def _one_round(amplitude, rounds=32):
    return griffin_lim(amplitude, 1)


@register("04.griffin_lim", reference=griffin_lim, minutes=10, difficulty=2,
          wrong=[_random_phases, _phase_zero, _keeps_the_amplitudes_that_come_back, _divides_by_zero, _one_round],
          hint="In each round: spectrum = stft(istft(amplitude * phase)), then phase = spectrum / "
               "|spectrum|.")
def check_griffin_lim(fn):
    t = torch.arange(4000) / SAMPLE_RATE
    voice = sum(torch.sin(2 * math.pi * 120 * k * (t + 0.05 * t**2)) / k for k in range(1, 12))[None] * 0.1
    wanted = stft(voice).abs()
    out = fn(wanted, 32)
    assert tuple(out.shape) == (1, 4000), f"50 frames make 4,000 samples, (1, 4000), not {tuple(out.shape)}"
    assert out.isfinite().all(), "the sound has NaN or infinite samples"
    error = ((stft(out).abs() - wanted).norm() / wanted.norm()).item()
    assert error < 0.25, ("after 32 rounds the sound's own amplitudes should be within 25 % of the wanted "
                          f"ones, they are {error:.0%} away: in each of the `rounds`, keep the phases that come back "
                          "and put the wanted amplitudes in again")
    pause = voice.clone()
    pause[:, 1500:3000] = 0                                   # digital silence: whole frames of zeros
    assert fn(stft(pause).abs(), 4).isfinite().all(), (
        "a sound with a pause of exact zeros gives NaN: where the spectrum is 0, z / |z| divides by zero; "
        "`torch.sgn(z)` is 0 there")


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


@register("04.bits_per_second", reference=bits_per_second, minutes=2,
          wrong=[_forgets_levels, _one_big_book, _natural],
          hint="One code chooses 1 of K: log2 K bits. A frame has one code for each level.")
def check_bits_per_second(fn):
    cases = [(25, 512, 4, 900), (25, 512, 1, 225), (75, 1024, 8, 6000), (8000, 256, 1, 64000)]
    for rate, size, levels, bits in cases:
        said = fn(rate, size, levels)
        assert abs(said - bits * math.log(2)) > 1e-3 or not bits, (
            f"{rate} frames a second, {levels} codes of {size}: {said:.2f} is the answer in nats; a bit is one "
            "choice of two, so take log2")
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


def _gives_the_rest(z, codebooks):
    ids, total = quantize_residual(z, codebooks)
    return ids, z - total


@register("04.quantize_residual", reference=quantize_residual, minutes=8, difficulty=2,
          wrong=[_quantizes_the_same_again, _last_level_only, _farthest, _gives_the_rest],
          hint="Keep `rest`, what is left to explain. Each level: find its nearest code, note the index, "
               "subtract.")
def check_quantize_residual(fn):
    z = torch.tensor([[1.0, 0.4], [-1.0, 0.4]])
    books = [torch.tensor([[1.0, 1.0], [-1.0, 0.0]]), torch.tensor([[0.0, 0.9], [0.0, -0.5]])]
    ids, total = fn(z, books)
    same_again = _quantizes_the_same_again(z, books)[0].tolist()
    assert torch.as_tensor(ids).tolist() != same_again, (
        "the second level quantizes z itself again: it must take what the first one left over, z minus its code")
    assert torch.as_tensor(ids).tolist() == [[0, 1], [1, 0]], (
        "for z = [[1, 0.4], [-1, 0.4]] the ids must be [[0, 1], [1, 0]] (row: vector, column: level), not "
        f"{ids.tolist()}")
    assert torch.allclose(total, torch.tensor([[1.0, 0.5], [-1.0, 0.9]])), (
        f"the sum of the chosen codes must be [[1, 0.5], [-1, 0.9]], not {total.tolist()}")
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


# ---------------------------------------------------------------- the same loop in the real codec

def residual_codec(z: torch.Tensor, codebooks: list[torch.Tensor], levels: int):
    """The quantizer of the codec, by hand.

    (B, dim, t) vectors of the encoder, one (K, dim) codebook for each level, how many levels to use -> ids
    (B, t, levels), the sum of the chosen codes (B, dim, t), and for each level the share of the vectors'
    power that is left after it: a list of floats.
    """
    B, dim, t = z.shape
    vectors = z.transpose(1, 2).reshape(B * t, dim)
    rest, ids, left = vectors, [], []
    for codes in codebooks[:levels]:
        index = nearest_code(rest, codes)
        rest = rest - codes[index]
        ids.append(index)
        left.append(float(rest.square().sum() / vectors.square().sum()))
    total = (vectors - rest).view(B, t, dim).transpose(1, 2)
    return torch.stack(ids, 1).view(B, t, levels), total, left


def _reshapes_without_turning(z, codebooks, levels):
    B, dim, t = z.shape
    ids, total, left = residual_codec(z.reshape(B, t, dim).transpose(1, 2), codebooks, levels)
    return ids, total, left


def _vector_anew(z, codebooks, levels):
    vectors = z.transpose(1, 2)
    ids = [nearest_code(vectors.flatten(0, 1), codes).view(vectors.shape[:2]) for codes in codebooks[:levels]]
    sums = torch.stack([codes[i] for codes, i in zip(codebooks, ids)]).cumsum(0)
    left = [float((vectors - part).square().sum() / z.square().sum()) for part in sums]
    return torch.stack(ids, 2), sums[-1].transpose(1, 2), left


def _all_levels_always(z, codebooks, levels):
    return residual_codec(z, codebooks, len(codebooks))


def _time_first(z, codebooks, levels):
    ids, total, left = residual_codec(z, codebooks, levels)
    return ids, total.transpose(1, 2), left


def _of_the_level_before(z, codebooks, levels):
    ids, total, left = residual_codec(z, codebooks, levels)
    return ids, total, [a / b for a, b in zip(left, [1.0, *left])]


def _one_book_for_all(z, codebooks, levels):
    return residual_codec(z, [codebooks[0]] * len(codebooks), levels)


@register("04.residual_codec", reference=residual_codec, minutes=15, difficulty=3,
          wrong=[_reshapes_without_turning, _vector_anew, _all_levels_always, _time_first, _of_the_level_before,
                 _one_book_for_all],
          hint="Turn z with transpose(1, 2), flatten (B, t) into one axis, run your loop, and turn the sum back.")
@torch.no_grad()
def check_residual_codec(fn):
    codec = checkpoints.load("codec")
    sound = torch.from_numpy(notes([200.0, 250.0, 160.0, 300.0], 0.16)).view(2, -1)
    z = codec.encoder(codec.features(sound))                                            # (2, 64, 8)
    for levels in (1, 2, 4):
        ids, total, left = fn(z, codec.codebooks, levels)
        want_ids, want, want_left = residual_codec(z, codec.codebooks, levels)
        case = f"two sounds of {z.shape[2]} frames, {levels} level{'s' * (levels > 1)}"
        assert tuple(ids.shape) == tuple(want_ids.shape), (
            f"{case}: the ids have the shape (B, t, levels) = {tuple(want_ids.shape)}, not {tuple(ids.shape)}")
        for level in range(levels):
            right = (ids[..., level] == want_ids[..., level]).float().mean()
            assert right > 0.99, (
                f"{case}: of level {level} only {right:.0%} of the ids are the codec's own. "
                + ("Each frame's vector is z[b, :, frame]: transpose(1, 2) before you flatten" if level == 0 else
                   "Each level has a codebook of its own, and takes what the levels before left over"))
        assert tuple(total.shape) == tuple(z.shape), (
            f"{case}: the sum of the codes has z's own shape (B, dim, t) = {tuple(z.shape)}, as the decoder wants it, "
            f"not {tuple(total.shape)}")
        assert torch.allclose(total, want, atol=1e-4), (
            f"{case}: the second result must be the sum of the chosen codes, {(total - want).abs().max():.3f} away")
        assert len(left) == levels and np.allclose([float(v) for v in left], want_left, atol=1e-4), (
            f"{case}: of the vectors' power {', '.join(f'{v:.3f}' for v in want_left)} is left after each level "
            f"(sum of squares of the rest / sum of squares of z), not {', '.join(f'{float(v):.3f}' for v in left)}")


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


def _circular(samples, low=70.0, high=500.0):
    shifts = range(math.ceil(SAMPLE_RATE / high), int(SAMPLE_RATE / low) + 1)
    return SAMPLE_RATE / max(shifts, key=lambda k: float(samples @ torch.roll(samples, k)))


def _mean_for_sum(samples, low=70.0, high=500.0):
    shifts = range(math.ceil(SAMPLE_RATE / high), int(SAMPLE_RATE / low) + 1)
    return SAMPLE_RATE / max(shifts, key=lambda k: float((samples[:-k] * samples[k:]).mean()))


@register("04.pitch", reference=pitch, minutes=8, difficulty=2,
          wrong=[_loudest_frequency, _any_shift, _the_shift_itself, _circular, _mean_for_sum],
          hint="For a shift k: samples[:-k] @ samples[k:]. Try all k from 8000 / high to 8000 / low, keep "
               "the best, return Hz.")
def check_pitch(fn):
    t = torch.arange(800) / SAMPLE_RATE
    for hz, weights in ((100.0, (1, 1, 1, 1)), (160.0, (0.2, 1, 0.5, 0.5)), (250.0, (1, 0.5, 0.3, 0.2)),
                        (125.0, (0, 1, 1, 1))):
        samples = sum(w * torch.sin(2 * math.pi * hz * (k + 1) * t + k) for k, w in enumerate(weights))
        said = float(fn(samples + 0.02 * torch.randn(800)))
        assert abs(said - SAMPLE_RATE / hz) > 1 or abs(said - hz) < 0.03 * hz, (
            f"a sound that repeats {hz:.0f} times a second: {said:.0f} is the shift in samples; the pitch is "
            "8000 / shift")
        assert abs(said - hz) < 0.03 * hz, (
            f"four waves of {hz:.0f}, {2 * hz:.0f}, {3 * hz:.0f} and {4 * hz:.0f} Hz, as strong as "
            f"{weights}, repeat {hz:.0f} times a second; the answer was {said:.1f} Hz")
    samples = torch.sin(2 * math.pi * 200 * t)
    said = float(fn(samples, 70.0, 130.0))
    assert abs(said - 100) < 3, (
        f"between 70 and 130 Hz, a wave of 200 Hz repeats best at 100 Hz; the answer was {said:.1f} Hz")
    n, hz = 160, 90.0                                        # less than two periods: its ends do not fit
    samples = sum(torch.sin(2 * math.pi * hz * k * t[:n]) for k in range(1, 6))
    said = float(fn(samples))
    assert abs(said - hz) < 3, (
        f"20 ms of {hz:.0f} Hz, nearly two periods: the answer was {said:.1f} Hz. Do not let the sound wrap round "
        "its end (as torch.roll does): compare samples[:-k] with samples[k:] alone")
