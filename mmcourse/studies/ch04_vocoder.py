"""A small neural vocoder against Griffin-Lim, at equal input; about 2 CPU minutes.

The network is the smallest of the kind of Vocos (Siuzdak, 2023): log-mel frames in, amplitude and phase of
each frame out, one inverse Fourier transform; learned from spectra alone, without a second network that
judges. It is kept only as a verdict, at equal input and on held-out voices.
"""
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse import checkpoints
from mmcourse.codec import CLIP_SAMPLES, DilatedBlock
from mmcourse.judges.hearing import stack
from mmcourse.optim import Optim
from mmcourse.paths import cache_dir
from mmcourse.recipes.codec import CodecBatches
from mmcourse.spectrogram import HOP, WINDOW, hann, log_mel, normalize_loudness, normalize_mel
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch04 import held_out_clips, judge_sound, small_sound
from mmcourse.training import History, Run, train
from mmcourse.world.speech import SAMPLE_RATE

BATCH = 12
SECONDS = 0.64                          # of sound in a row of a batch
WIDTH = 128
LR = 2e-3
SOURCES = ("true log-mel", "log-mel from 4 levels")
WAYS = ("Griffin-Lim", "network")


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 900
    per_voice: int = 16                 # clips of each held-out voice that are measured
    heard: str = "elephant"             # the word whose sound is kept


def overlap_add(frames: torch.Tensor) -> torch.Tensor:
    """Windowed frames (B, n, 256), one each 10 ms -> (B, 80 n): the end of the codec's `istft`."""
    n, margin = frames.shape[1], (WINDOW - HOP) // 2
    total = (n - 1) * HOP + WINDOW

    def add(pieces):
        return F.fold(pieces.transpose(1, 2), (1, total), (1, WINDOW), stride=(1, HOP))[:, 0, 0]
    weight = add(hann(WINDOW).square().expand(1, n, WINDOW))
    return (add(frames * hann(WINDOW)) / weight.clamp(min=1e-3))[:, margin:margin + n * HOP]


class Vocoder(nn.Module):
    """Log-mel (B, 64, n), normalized as the codec's features, -> sound (B, 80 n)."""

    def __init__(self, bands: int = 64, width: int = WIDTH):
        super().__init__()
        bins = WINDOW // 2 + 1
        self.body = nn.Sequential(
            nn.Conv1d(bands, width, 5, padding=2), DilatedBlock(width), DilatedBlock(width, 2),
            DilatedBlock(width, 4), DilatedBlock(width), DilatedBlock(width, 2), nn.Conv1d(width, 3 * bins, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Size and direction of each bin of each frame, then one inverse transform."""
        size, x, y = self.body(features).transpose(1, 2).chunk(3, -1)          # (B, n, 129) each
        length = (x.square() + y.square() + 1e-6).sqrt()
        return overlap_add(torch.fft.irfft(torch.complex(x, y) / length * size.clamp(max=6).exp(), n=WINDOW))


def spectral_distance(sound: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """The mean distance of amplitudes, and of their logarithms, in three resolutions (Yamamoto et al.,
    2020)."""
    total = 0.0
    for size in (128, 256, 512):
        a, b = (torch.stft(x, size, size // 4, size, hann(size), return_complex=True).abs() for x in (sound, true))
        logs = a.clamp(min=1e-2).log() - b.clamp(min=1e-2).log()
        total = total + (a - b).norm() / b.norm() + logs.abs().mean()
    return total / 3


class Pairs:
    """Batches of (features, sound): the features of half of the rows have gone through the codec's tokens."""

    def __init__(self, codec):
        self.codec, self.batches = codec, CodecBatches(BATCH, SECONDS, humans=False)

    @torch.no_grad()
    def __call__(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 64, n) and (B, 80 n)."""
        sound, _ = self.batches(rng)
        mel = log_mel(sound, self.codec.filters)
        half = len(sound) // 2
        mel[:half] = self.codec.decode_mel(self.codec.encode(sound[:half]))
        return normalize_mel(mel), sound


def loss(model: Vocoder, features: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """How far the network's sound is from the true one."""
    return spectral_distance(model(features), true)


@cache
def trained(plan: Plan) -> tuple[Vocoder, History]:
    """The network; a training that was stopped goes on."""
    torch.manual_seed(0)
    model, codec = Vocoder(), checkpoints.load("codec")
    run = cache_dir() / "runs" / f"ch04_vocoder-{plan.steps}-{checkpoints.identity('codec')[:8]}.pt"
    return model, finished(train(model, Pairs(codec), loss, steps=plan.steps, run=Run(resume=run),
                                 optim=Optim("muon", lr=LR, weight_decay=0.0, warmup=50)))


@torch.no_grad()
def row(plan: Plan, source: str, way: str) -> dict:
    """One way back to sound from one kind of spectrogram: true ones, or those of the codec's four levels."""
    (clips, words), codec = held_out_clips(plan.per_voice, plan.heard), checkpoints.load("codec")
    sounds = normalize_loudness(stack(clips, CLIP_SAMPLES))
    mel = log_mel(sounds, codec.filters) if source == SOURCES[0] else codec.decode_mel(codec.encode(sounds))
    model = trained(plan)[0] if way == "network" else None
    start = time.process_time()
    sound = codec.mel_to_sound(mel) if model is None else model(normalize_mel(mel))
    seconds = time.process_time() - start
    sound = normalize_loudness(sound).clamp(-1, 1)
    return {**judge_sound(clips, words, sound, checkpoints.load("word_judge")),
            "times_real_time": round(sound.numel() / SAMPLE_RATE / seconds, 1),
            "sound": small_sound(sound[-1][:len(clips[-1])])}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """What the network cost, and both ways from both kinds of spectrograms."""
    cost = {"cpu_minutes": lambda: round(trained(plan)[1].cpu_minutes, 2),
            "parameters": lambda: sum(p.numel() for p in Vocoder().parameters()),
            "loss": lambda: [round(v, 3) for v in trained(plan)[1].column("loss")[::5]]}
    out = [Job(name, measure, section=()) for name, measure in cost.items()]
    return out + [Job(f"{source}, {way}", partial(row, plan, source, way)) for source in SOURCES for way in WAYS]


def head(plan: Plan) -> dict:
    """Which codec was measured, and the steps of the network."""
    return {"codec_sha256": checkpoints.identity("codec"), "steps": plan.steps}


STUDY = Study("ch04_vocoder", Plan(), Plan(steps=1, per_voice=1), jobs, head)
main = STUDY.run
