"""Speech as other throats, rooms and microphones would give it: what a listener must not care about."""
import numpy as np

from mmcourse.world.speech import SAMPLE_RATE


def change_speed(samples: np.ndarray, ratio: float) -> np.ndarray:
    """Play `ratio` times as fast: duration, pitch and formants all move, as with a throat of another size."""
    return np.interp(np.arange(0, len(samples) - 1, ratio), np.arange(len(samples)), samples)


def perturb_vocal_tract(samples: np.ndarray, ratio: float, window: int = 256, hop: int = 64,
                        quefrencies: int = 24) -> np.ndarray:
    """Move the formants up by `ratio`, neither the pitch nor the tempo, as with a mouth of another length.

    The envelope of each frame's spectrum is what the first `quefrencies` numbers of its cepstrum hold; it is
    stretched along the frequencies, and the harmonics under it stay where they are. After Jaitly & Hinton
    2013, who warp the whole spectrum.
    """
    shape = np.hanning(window + 1)[:-1]
    padded = np.pad(np.asarray(samples, dtype=np.float64), (window, window + hop))
    starts = np.arange(0, len(padded) - window + 1, hop)
    spectrum = np.fft.rfft(padded[starts[:, None] + np.arange(window)] * shape)    # (frames, window / 2 + 1)
    cepstrum = np.fft.irfft(np.log(np.abs(spectrum) + 1e-5))
    cepstrum[:, quefrencies:window - quefrencies + 1] = 0
    envelope = np.fft.rfft(cepstrum).real
    at = np.arange(envelope.shape[1]) / ratio
    low = np.minimum(at.astype(int), envelope.shape[1] - 2)
    part = np.clip(at - low, 0, 1)
    moved = envelope[:, low] * (1 - part) + envelope[:, low + 1] * part
    frames = np.fft.irfft(spectrum * np.exp(np.clip(moved - envelope, -2.5, 2.5))) * shape
    out, weight = np.zeros_like(padded), np.zeros_like(padded)
    for start, frame in zip(starts, frames, strict=True):
        out[start:start + window] += frame
        weight[start:start + window] += shape**2
    return (out / np.maximum(weight, 1e-3))[window:window + len(samples)]


def equalise(samples: np.ndarray, rng: np.random.Generator, decibels: float = 8.0) -> np.ndarray:
    """Another microphone: a smooth random gain of up to about +-`decibels` from 60 Hz to 4 kHz."""
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    knots = np.geomspace(60, SAMPLE_RATE / 2, 6)
    at_knots = rng.uniform(-decibels, decibels, len(knots))
    gain = np.interp(np.log(np.maximum(frequency, 60)), np.log(knots), at_knots)
    return np.fft.irfft(spectrum * 10 ** (gain / 20), len(samples))


def reverberate(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A small room: an exponentially fading tail of noise, 50 to 300 ms long (-60 dB)."""
    seconds = rng.uniform(0.05, 0.3)
    time = np.arange(1, int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.normal(size=len(time)) * np.exp(-6.9 * time / seconds)
    tail *= rng.uniform(0.1, 0.6) / np.sqrt((tail**2).sum())
    return np.convolve(samples, np.concatenate([[1.0], tail]))[:len(samples)]


def augment(samples: np.ndarray, rng: np.random.Generator, vocal_tract: bool = False) -> np.ndarray:
    """Another recording of the same words: other throat, microphone, room, noise and start.

    (samples,) at 8 kHz -> float32 of another length. With `vocal_tract` the formants move by themselves too.
    """
    if vocal_tract:
        samples = perturb_vocal_tract(samples, rng.uniform(0.84, 1.19))
    x = change_speed(np.asarray(samples, dtype=np.float64), rng.uniform(0.82, 1.22))
    if rng.random() < 0.7:
        x = equalise(x, rng)
    if rng.random() < 0.4:
        x = reverberate(x, rng)
    x = np.concatenate([np.zeros(rng.integers(480)), x, np.zeros(rng.integers(480))])    # up to 60 ms of each
    level = np.sqrt((x**2).mean()) + 1e-9
    if rng.random() < 0.6:
        x = x + rng.normal(size=len(x)) * level * 10 ** (-rng.uniform(8, 40) / 20)        # 8 to 40 dB below
    return (x * min(0.1 / level, 0.99 / np.abs(x).max())).astype(np.float32)
