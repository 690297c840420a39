"""What limits the codec on human voices: every part of the route replaced by the truth, one at a time.

`python -m mmcourse.studies.ch04_limits` (some three minutes of one core) writes `data/results/ch04_limits.json`. It needs
the human digits and the `test` extra. Words are counted over all clips; STOI and PESQ over every second sound of five words;
intervals are 95 % bootstraps over the same clips (paired) or sounds.
"""
import argparse

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.judges.hearing import pesq, stack, stoi
from mmcourse.judges.pitch import compare, pitch_track
from mmcourse.paths import RESULTS
from mmcourse.spectrogram import FFT, FLOOR, HOP, WINDOW, hann, mel_filterbank, normalize_loudness
from mmcourse.studies.ch04_sweep import save
from mmcourse.world.human_digits import VALIDATION_SPEAKER, load_human_digits

FILE, SEED, JOINED, GAP, LENGTH = RESULTS / "ch04_limits.json", 0, 5, 800, 26 * 320
PITCHED = 60                                            # clips whose pitch is followed


def analyse(samples: torch.Tensor, window: int = WINDOW) -> torch.Tensor:
    """(B, 80 n) -> (B, 257, n + 1) complex: the codec's spectrum for another window (at most 512 samples)."""
    return torch.stft(samples, FFT, HOP, window, hann(window), return_complex=True)


def resynthesise(amplitude: torch.Tensor, length: int, window: int = WINDOW, phase=None, rounds: int = 32) -> torch.Tensor:
    """Amplitudes (B, 257, n) -> (B, length): with a given phase, or by the codec's Griffin-Lim (32 rounds)."""
    def back(spectrum):
        return torch.istft(spectrum, FFT, HOP, window, hann(window), length=length)
    if phase is not None:
        return back(amplitude * phase)
    noise = torch.rand(amplitude.shape[1:], generator=torch.Generator().manual_seed(SEED))
    phase, before = torch.polar(torch.ones_like(noise), 2 * torch.pi * noise).expand(amplitude.shape), 0
    for _ in range(rounds):
        there = analyse(back(amplitude * phase), window)
        phase, before = torch.sgn(there + 0.99 * (there - before)), there
    return back(amplitude * phase)


def through_mel(samples: torch.Tensor, bands: int | None = 64, window: int = WINDOW, true_phase: bool = False) -> torch.Tensor:
    """Sound -> log-mel of `bands` (None: all 257 amplitudes) -> sound; no network, no token."""
    spectrum = analyse(samples, window)
    amplitude, scale = spectrum.abs(), hann(window).sum() / 2
    if bands:
        filters = mel_filterbank(bands)
        mel = (filters @ amplitude / scale).clamp(min=FLOOR)
        amplitude = (torch.linalg.pinv(filters) @ mel).clamp(min=0) * scale
    return resynthesise(amplitude, samples.shape[1], window, torch.sgn(spectrum) if true_phase else None)


@torch.no_grad()
def ways(codec, sounds: torch.Tensor) -> dict:
    """{name: sound (B, samples)}: every way from a sound back to a sound."""
    sounds = normalize_loudness(sounds)
    ids = torch.cat([codec.encode(part) for part in sounds.split(64)])
    spectrum = analyse(sounds)
    phase, n = torch.sgn(spectrum), sounds.shape[1]

    def painted(mel):                                   # the codec's amplitudes with the true phases
        amplitude = (codec.mel_pinv @ mel.exp()).clamp(min=0) * hann(WINDOW).sum() / 2
        amplitude = torch.cat([amplitude, amplitude[..., -1:]], -1)
        return resynthesise(amplitude, n, phase=phase)
    unrounded = torch.cat([codec.decoder(codec.encoder(codec.features(part))) * 2 - 7 for part in sounds.split(64)])
    out = {"true sound": sounds,
           "257 amplitudes, Griffin-Lim": through_mel(sounds, None),
           "64 bands, true phase": through_mel(sounds, true_phase=True),
           "32 bands, Griffin-Lim": through_mel(sounds, 32),
           "64 bands, Griffin-Lim (our route)": through_mel(sounds),
           "64 bands, window of 64 ms": through_mel(sounds, window=512),
           "encoder and decoder, nothing rounded": torch.cat([codec.mel_to_sound(m) for m in unrounded.split(64)])}
    for levels in (4, 2, 1):
        name = f"{levels} level{'s' * (levels > 1)}"
        mel = codec.decode_mel(ids[..., :levels])
        out[name] = torch.cat([codec.decode(part[..., :levels]) for part in ids.split(64)])
        out[f"{name}, true phase"] = painted(mel)
    return out


def interval(values, rng: np.random.Generator, draws: int = 2000) -> list[float]:
    """The middle 95 % of the means of resampled values."""
    values = np.asarray(values, float)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(1)
    return [round(float(x), 4) for x in np.quantile(means, (0.025, 0.975))]


def measure(codec, judge, clips: list, words: list) -> dict:
    """Every way's words (n clips, paired difference to the true sound), STOI, PESQ and the share of pitch that is left."""
    rng, true, rows = np.random.default_rng(SEED), None, {}
    gap = np.zeros(GAP, np.float32)
    lengths = [min(len(c), LENGTH) for c in clips]
    for name, sound in ways(codec, stack(clips, LENGTH)).items():
        cut = [y[:n].numpy().astype(np.float32) for y, n in zip(sound, lengths)]
        right = np.array([a == b for a, b in zip(judge.hear(stack(cut)), words, strict=True)], float)
        if true is None:
            true, base = cut, right
        pairs = [[np.concatenate([p for c in x[a:a + JOINED] for p in (c, gap)]) for x in (true, cut)]
                 for a in range(0, len(clips) - JOINED + 1, 2 * JOINED)]
        quality = {"stoi": [stoi(*p) for p in pairs], "pesq": [pesq(*p) for p in pairs]}
        kept = [compare(a, b)["voiced"] for a, b in list(zip(true, cut))[:PITCHED]]
        rows[name] = {"words": round(right.mean(), 4), "words_minus_true": round((right - base).mean(), 4),
                      "words_interval": interval(right - base, rng),
                      "pitch_kept": round(float(np.nanmean(kept)), 3)}
        for key, values in quality.items():
            rows[name] |= {key: round(float(np.mean(values)), 4), f"{key}_interval": interval(values, rng)}
        print(f"    {name:38}", rows[name], flush=True)
    heights = [np.nanmedian(pitch_track(c)) for c in true[:PITCHED]]
    return {"clips": len(clips), "sounds": len(pairs), "median_pitch_hz": round(float(np.nanmedian(heights)), 1), "rows": rows}


def main(argv: list[str] | None = None) -> dict:
    """Measure the held-out person, then people whom the codec has heard (other recordings of them); write."""
    argparse.ArgumentParser(prog="python -m mmcourse.studies.ch04_limits", description=__doc__.split("\n")[0]).parse_args(argv)
    torch.set_num_threads(1)
    digits = load_human_digits()
    if digits is None:
        raise SystemExit("this needs the human digits: python -m mmcourse data human-digits")
    codec, judge = checkpoints.load("codec"), checkpoints.load("word_judge")
    chosen = {"the held-out person": [i for i, s in enumerate(digits.speakers) if s == VALIDATION_SPEAKER],
              "people of the training, other recordings":
                  [i for i, s in enumerate(digits.speakers) if s != VALIDATION_SPEAKER and digits.held_out[i]]}
    result = {"codec_sha256": checkpoints.manifest()["codec"]["sha256"], "sets": {}}
    for name, indices in chosen.items():
        indices = np.random.default_rng(SEED).permutation(indices)
        print(name, flush=True)
        result["sets"][name] = measure(codec, judge, [digits.clips[i] for i in indices], [digits.words[i] for i in indices])
        save(result, FILE)
    return result


if __name__ == "__main__":
    main()
