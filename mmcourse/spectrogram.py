"""Sound <-> spectrogram: short-time Fourier transform and its inverse, the mel scale, Griffin-Lim, loudness.

All sound is mono at 8 kHz; a frame begins every 10 ms.
"""
import math

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse.world.speech import MOST_CHANNELS, SAMPLE_RATE

HOP = 80                      # samples from one frame to the next: 10 ms
WINDOW = 256                  # samples in a frame: 32 ms, about three periods of a low voice
FFT = 512                     # the frame is padded with zeros to this length: bins of 15.6 Hz
FLOOR = 1e-4                  # amplitudes below this (-80 dB) count as silence


def hann(length: int, device=None) -> torch.Tensor:
    """The (periodic) Hann window, (length,): a frame fades in and out.

    >>> hann(4).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """
    return 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(length, device=device) / length)


def stft(samples: torch.Tensor) -> torch.Tensor:
    """Short-time Fourier transform: (B, 80 n) -> (B, n, 257) complex, a row each 10 ms."""
    margin = (WINDOW - HOP) // 2          # frame t is centred on samples 80 t ... 80 t + 79
    frames = F.pad(samples, (margin, margin)).unfold(-1, WINDOW, HOP)          # (B, n, 256)
    return torch.fft.rfft(frames * hann(WINDOW, samples.device), n=FFT)


def istft(spectrum: torch.Tensor) -> torch.Tensor:
    """The inverse of `stft`: (B, n, 257) -> (B, 80 n).

    Frames are windowed again, added where they overlap, and divided by the sum of the
    squared windows: least squares where frames disagree (Griffin and Lim, 1984).
    """
    n, margin = spectrum.shape[1], (WINDOW - HOP) // 2
    window = hann(WINDOW, spectrum.device)
    frames = torch.fft.irfft(spectrum, n=FFT)[..., :WINDOW] * window           # (B, n, 256)
    total = (n - 1) * HOP + WINDOW

    def add(pieces):                                             # (B, n, 256) -> (B, total)
        rows = pieces.transpose(1, 2)
        return F.fold(rows, (1, total), (1, WINDOW), stride=(1, HOP))[:, 0, 0]

    weight = add(window.square().expand(1, n, WINDOW))
    return (add(frames) / weight.clamp(min=1e-8))[:, margin:margin + n * HOP]


def hz_to_mel(hz):
    """The mel scale, in which equal steps sound equal: nearly linear below 700 Hz."""
    return 2595 * np.log10(1 + np.asarray(hz) / 700)


def mel_to_hz(mel):
    """The inverse of `hz_to_mel`."""
    return 700 * (10 ** (np.asarray(mel) / 2595) - 1)


def mel_filterbank(bands: int, low: float = 40.0, high: float = SAMPLE_RATE / 2):
    """Triangles (bands, 257), evenly spaced in mel; each row sums to 1: a weighted mean."""
    edges = mel_to_hz(np.linspace(hz_to_mel(low), hz_to_mel(high), bands + 2))
    hz = np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)
    left, peak, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (hz - left) / (peak - left), (right - hz) / (right - peak)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return torch.tensor(triangles / triangles.sum(1, keepdims=True), dtype=torch.float32)


def log_mel(samples: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """(B, 80 n) -> (B, bands, n): the log amplitude in each band, 0 for a full sine."""
    amplitude = stft(samples).abs() / (hann(WINDOW).sum() / 2)                 # (B, n, 257)
    return (amplitude @ filters.T).clamp(min=FLOOR).log().transpose(1, 2)    # (B, bands, n)


def normalize_mel(mel: torch.Tensor) -> torch.Tensor:
    """A log-mel (natural logarithms, about -9 ... 0) shifted and scaled to about -1 ... 2."""
    return (mel + 7) / 2


def denormalize_mel(mel: torch.Tensor) -> torch.Tensor:
    """The inverse of `normalize_mel`."""
    return mel * 2 - 7


def griffin_lim(amplitude: torch.Tensor, rounds: int = 32, momentum: float = 0.99):
    """Sound from amplitudes alone: (B, n, 257) -> (B, 80 n).

    Start with random phases; go to sound and back, keep the phases that come back, put the
    wanted amplitudes in again. The momentum is that of the fast version (Perraudin, Balazs
    and Sondergaard, 2013).
    """
    dice = torch.Generator().manual_seed(0)                      # the same for every sound
    noise = torch.rand(amplitude.shape[1:], generator=dice).to(amplitude)
    phase = torch.polar(torch.ones_like(noise), 2 * math.pi * noise).expand(amplitude.shape)
    before = 0
    for _ in range(rounds):
        there = stft(istft(amplitude * phase))
        ahead = there + momentum * (there - before)
        phase, before = torch.sgn(ahead), there                 # the direction, of length 1
    return istft(amplitude * phase)


def normalize_loudness(samples: torch.Tensor, loudness: float = 0.1, silence: float = 1e-4):
    """Scale each row of (B, samples) so that its loud parts have an RMS of `loudness`.

    Rows whose RMS is below `silence` become 0.
    """
    count = samples.shape[-1] // HOP * HOP
    pieces = samples[..., :count].unflatten(-1, (-1, HOP))          # (B, n, 80): 10 ms each
    energy = pieces.square().mean(-1)
    loud = energy > energy.amax(-1, keepdim=True) * 10 ** -3.6
    mean = (energy * loud).sum(-1, keepdim=True) / loud.sum(-1, keepdim=True).clamp(min=1)
    rms = mean.sqrt()
    scaled = samples * loudness / rms.clamp(min=silence)
    return torch.where(rms > silence, scaled, torch.zeros_like(samples))


def dc_offset(samples: torch.Tensor) -> torch.Tensor:
    """What a faulty microphone adds to every sample: (B, samples) -> (B, 1).

    It is the mean of a row where that is more than half of the RMS, else 0. No ear hears it, but it would be
    taken for loudness.
    """
    mean, rms = samples.mean(-1, keepdim=True), samples.square().mean(-1, keepdim=True).sqrt()
    return torch.where(mean.abs() > 0.5 * rms, mean, torch.zeros_like(mean))


def check_sound(samples) -> torch.Tensor:
    """(samples,) or (B, samples) as float32 (B, samples); ValueError or TypeError that says what is wrong."""
    samples = torch.as_tensor(samples)
    if samples.is_meta or samples.layout != torch.strided:
        raise ValueError("sound is an ordinary tensor that holds its samples, not a meta or sparse one")
    if not samples.is_floating_point():
        raise TypeError(f"sound is float in [-1, 1], got {samples.dtype}; divide int16 samples by 32768, "
                        "or let mmcourse.media.Audio do it")
    samples = samples[None] if samples.ndim == 1 else samples
    if samples.ndim != 2 or not samples.numel():
        raise ValueError("sound has the shape (samples,) or (B, samples), not empty, got "
                         f"{tuple(samples.shape)}; take the mean over the channels of a stereo recording")
    if samples.shape[1] <= MOST_CHANNELS < samples.shape[0]:
        raise ValueError(f"{samples.shape[1]} samples a row are no sound: (samples, channels) of a recording becomes "
                         "one channel with mmcourse.media.Audio, or .mean(1)")
    if not samples.isfinite().all():
        raise ValueError("the sound has NaN or infinite samples")
    if samples.abs().max() > 100:                          # loud is one thing, another scale another
        raise ValueError(f"sound is float in [-1, 1], got {samples.min():.3g}..{samples.max():.3g}; divide 16-bit "
                         "samples by 32768")
    return samples.float()
