"""What limits the codec on human voices? Each part of the route made true; about 3 CPU minutes.

It needs the human digits and the `test` extra. Words are counted over all clips; STOI and PESQ over every
second sound of five words; intervals are 95 % bootstraps over the same clips (paired) or sounds.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.judges.hearing import LENGTH as JUDGED_SAMPLES
from mmcourse.judges.hearing import pesq, stack, stoi
from mmcourse.judges.metrics import bootstrap_interval, paired_bootstrap
from mmcourse.judges.pitch import compare, pitch_track
from mmcourse.spectrogram import (
    FFT,
    FLOOR,
    HOP,
    WINDOW,
    denormalize_mel,
    hann,
    mel_filterbank,
    normalize_loudness,
)
from mmcourse.studies import Job, Study
from mmcourse.world.human_digits import VALIDATION_SPEAKER, load_human_digits

SEED = 0
JOINED = 5                              # words in a sound
GAP = 800                               # samples of silence after each
ROUNDS = 32                             # of Griffin-Lim
SETS = ("the held-out person", "people of the training, other recordings")


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    clips: int | None = None            # of each set; None: all
    pitched: int = 60                   # clips whose pitch is followed


def analyse(samples: torch.Tensor, window: int = WINDOW) -> torch.Tensor:
    """(B, 80 n) -> (B, 257, n + 1) complex: the codec's spectrum for another window (at most 512 samples)."""
    return torch.stft(samples, FFT, HOP, window, hann(window), return_complex=True)


def resynthesise(amplitude: torch.Tensor, length: int, window: int = WINDOW, phase=None) -> torch.Tensor:
    """Amplitudes (B, 257, n) -> (B, length): with a given phase, or by the codec's Griffin-Lim."""
    def back(spectrum):
        return torch.istft(spectrum, FFT, HOP, window, hann(window), length=length)
    if phase is not None:
        return back(amplitude * phase)
    noise = torch.rand(amplitude.shape[1:], generator=torch.Generator().manual_seed(SEED))
    phase, before = torch.polar(torch.ones_like(noise), 2 * torch.pi * noise).expand(amplitude.shape), 0
    for _ in range(ROUNDS):
        there = analyse(back(amplitude * phase), window)
        phase, before = torch.sgn(there + 0.99 * (there - before)), there
    return back(amplitude * phase)


def through_mel(samples: torch.Tensor, bands: int | None = 64, window: int = WINDOW,
                true_phase: bool = False) -> torch.Tensor:
    """Sound -> log-mel of `bands` (None: all 257 amplitudes) -> sound; no network, no token."""
    spectrum = analyse(samples, window)
    amplitude, scale = spectrum.abs(), hann(window).sum() / 2
    if bands:
        filters = mel_filterbank(bands)
        mel = (filters @ amplitude / scale).clamp(min=FLOOR)
        amplitude = (torch.linalg.pinv(filters) @ mel).clamp(min=0) * scale
    return resynthesise(amplitude, samples.shape[1], window, torch.sgn(spectrum) if true_phase else None)


@torch.no_grad()
def ways(codec, sounds: torch.Tensor) -> dict[str, torch.Tensor]:
    """{name: sound (B, samples)}: every way from a sound back to a sound."""
    sounds = normalize_loudness(sounds)
    ids = torch.cat([codec.encode(part) for part in sounds.split(64)])
    phase, n = torch.sgn(analyse(sounds)), sounds.shape[1]

    def painted(mel):                                   # the codec's amplitudes with the true phases
        amplitude = (codec.mel_pinv @ mel.exp()).clamp(min=0) * hann(WINDOW).sum() / 2
        amplitude = torch.cat([amplitude, amplitude[..., -1:]], -1)
        return resynthesise(amplitude, n, phase=phase)
    unrounded = torch.cat([denormalize_mel(codec.decoder(codec.encoder(codec.features(part))))
                           for part in sounds.split(64)])
    out = {"true sound": sounds,
           "257 amplitudes, Griffin-Lim": through_mel(sounds, None),
           "64 bands, true phase": through_mel(sounds, true_phase=True),
           "32 bands, Griffin-Lim": through_mel(sounds, 32),
           "64 bands, Griffin-Lim (our route)": through_mel(sounds),
           "64 bands, window of 64 ms": through_mel(sounds, window=512),
           "encoder and decoder, nothing rounded": torch.cat([codec.mel_to_sound(m) for m in unrounded.split(64)])}
    for levels in (4, 2, 1):
        name = f"{levels} level{'s' * (levels > 1)}"
        out[name] = torch.cat([codec.decode(part[..., :levels]) for part in ids.split(64)])
        out[f"{name}, true phase"] = painted(codec.decode_mel(ids[..., :levels]))
    return out


def in_a_row(clips: list) -> list[np.ndarray]:
    """Every second sound of five clips, each followed by a gap."""
    gap = np.zeros(GAP, np.float32)
    return [np.concatenate([part for clip in clips[a:a + JOINED] for part in (clip, gap)])
            for a in range(0, len(clips) - JOINED + 1, 2 * JOINED)]


def interval(bounds: tuple[float, float]) -> list[float]:
    """An interval as the file has it."""
    return [round(x, 4) for x in bounds]


def measure(codec, judge, clips: list, words: list, pitched: int) -> dict:
    """Every way's words (and their paired difference to the true sound), STOI, PESQ and the share of pitch
    that is left."""
    rng, rows = np.random.default_rng(SEED), {}
    lengths = [min(len(c), JUDGED_SAMPLES) for c in clips]
    sounds = {name: [row[:n].numpy().astype(np.float32) for row, n in zip(sound, lengths)]
              for name, sound in ways(codec, stack(clips, JUDGED_SAMPLES)).items()}
    true = sounds["true sound"]
    right = {name: np.array([a == b for a, b in zip(judge.hear(stack(cut)), words)], float)
             for name, cut in sounds.items()}
    for name, cut in sounds.items():
        pairs = list(zip(in_a_row(true), in_a_row(cut)))
        kept = [compare(a, b)["voiced"] for a, b in list(zip(true, cut))[:pitched]]
        difference = right[name] - right["true sound"]
        rows[name] = {"words": round(right[name].mean(), 4), "words_minus_true": round(difference.mean(), 4),
                      "words_interval": interval(paired_bootstrap(right[name], right["true sound"], rng)),
                      "pitch_kept": round(float(np.nanmean(kept)), 3)}
        for key, values in {"stoi": [stoi(*p) for p in pairs], "pesq": [pesq(*p) for p in pairs]}.items():
            rows[name] |= {key: round(float(np.mean(values)), 4),
                           f"{key}_interval": interval(bootstrap_interval(values, rng))}
    heights = [np.nanmedian(pitch_track(c)) for c in true[:pitched]]
    return {"clips": len(clips), "sounds": len(pairs), "median_pitch_hz": round(float(np.nanmedian(heights)), 1),
            "rows": rows}


def people(plan: Plan, name: str) -> dict:
    """One set: the held-out person, or people whom the codec has heard, in other recordings of them."""
    digits = load_human_digits()
    if digits is None:
        raise SystemExit("this needs the human digits: mmcourse data human-digits")
    held_out = name == SETS[0]
    chosen = [i for i, speaker in enumerate(digits.speakers)
              if (speaker == VALIDATION_SPEAKER) == held_out and digits.held_out[i]]
    chosen = np.random.default_rng(SEED).permutation(chosen)[:plan.clips]
    codec, judge = checkpoints.load("codec"), checkpoints.load("word_judge")
    clips, words = [digits.clips[i] for i in chosen], [digits.words[i] for i in chosen]
    return measure(codec, judge, clips, words, plan.pitched)


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """A job for each set of people: the bootstraps of its rows draw from one generator."""
    return [Job(name, partial(people, plan, name), section=("sets",)) for name in SETS]


def head(plan: Plan) -> dict:
    """Which codec was measured."""
    return {"codec_sha256": checkpoints.identity("codec")}


STUDY = Study("ch04_limits", Plan(), Plan(clips=JOINED, pitched=1), jobs, head)
main = STUDY.run
