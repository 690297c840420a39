"""How high is a voice? The pitch of a sound from its autocorrelation, and what a change of pitch sounds like in cents."""
import numpy as np

from mmcourse.world.speech import SAMPLE_RATE

HOP = 80                  # samples from one frame to the next: 10 ms
FRAME = 512               # samples: 64 ms, two periods and more of the lowest voices


def pitch_track(samples, low: float = 70.0, high: float = 500.0, clear: float = 0.6) -> np.ndarray:
    """The pitch of (samples,) at 8 kHz each 10 ms: (n,) Hz, NaN where nothing repeats itself or all is quiet.

    The normalised square difference of McLeod and Wyvill (A smarter way to find pitch, 2005): of the lags at which a frame
    resembles itself nearly best, the first is the period. `clear` (0 to 1) is how well it must repeat.
    """
    x = np.asarray(samples, dtype=np.float64)
    if x.ndim != 1 or not len(x):
        raise ValueError(f"the pitch is that of one channel, (samples,), not empty; got shape {x.shape}")
    if not 0 < low < high <= SAMPLE_RATE / 4:
        raise ValueError(f"the pitch lies between low and high, up to {SAMPLE_RATE // 4} Hz; got {low} to {high}")
    n = -(-len(x) // HOP)
    padded = np.pad(x, (FRAME // 2, FRAME // 2 + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP][:n]              # (n, 512)
    frames = frames - frames.mean(1, keepdims=True)
    power = np.abs(np.fft.rfft(frames, 2 * FRAME)) ** 2
    lags = int(SAMPLE_RATE / low) + 2
    same = np.fft.irfft(power)[:, :lags]                                        # (n, lags): the autocorrelation
    square = np.pad((frames**2).cumsum(1), ((0, 0), (1, 0)))                    # (n, 513)
    lag = np.arange(lags)
    both = square[:, FRAME - lag] + square[:, -1:] - square[:, lag]             # the energy of the two parts compared
    alike = 2 * same / np.maximum(both, 1e-12)                                  # (n, lags), at most 1
    first, out = int(SAMPLE_RATE / high), np.full(n, np.nan)
    middle = alike[:, 1:-1]
    peak = (middle >= alike[:, :-2]) & (middle > alike[:, 2:]) & (lag[1:-1] >= first)
    height = np.where(peak, middle, -1.0)
    best = height.max(1)
    loud = (frames**2).mean(1) > 1e-3 * max((frames**2).mean(1).max(), 1e-12)
    for t in np.flatnonzero((best > clear) & loud):
        k = 1 + int(np.argmax(height[t] > 0.9 * best[t]))
        a, b, c = alike[t, k - 1:k + 2]
        out[t] = SAMPLE_RATE / (k + 0.5 * (a - c) / (a - 2 * b + c))           # top of the parabola through three points
    return out


def cents(hz, reference) -> np.ndarray:
    """How far `hz` lies above `reference` in cents: 100 to a semitone, 1,200 to an octave."""
    return 1200 * np.log2(np.asarray(hz, dtype=np.float64) / np.asarray(reference, dtype=np.float64))


def compare(true, other) -> dict:
    """Two sounds of one length: the median distance of their pitches in cents, the share of frames off by more than a
    semitone, and the share of voiced frames of the first that have a pitch in the second.
    """
    a, b = pitch_track(true), pitch_track(other)
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    voiced, both = np.isfinite(a), np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return {"cents": float("nan"), "off": float("nan"), "voiced": 0.0}
    far = np.abs(cents(b[both], a[both]))
    return {"cents": float(np.median(far)), "off": float((far > 100).mean()), "voiced": float(both.sum() / voiced.sum())}


def notes(pitches, seconds: float = 0.4, harmonics: int = 8) -> np.ndarray:
    """A melody: each pitch (Hz) for `seconds`, with harmonics that fade as strings do; float32 at 8 kHz, RMS about 0.1."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    shape = np.minimum(1, np.minimum(t, seconds - t) / 0.02) * np.exp(-2 * t)
    out = np.concatenate([shape * sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, harmonics + 1)
                                      if k * hz < 0.95 * SAMPLE_RATE / 2) for hz in pitches])
    return (0.1 * out / np.sqrt((out**2).mean())).astype(np.float32)
