"""A small neural vocoder against Griffin-Lim: does a network that guesses the phases win at equal input?

`python -m mmcourse.studies.ch04_vocoder` (about two minutes of one core) trains it, measures both on held-out voices and writes
`data/results/ch04_vocoder.json`. The network is the smallest of the kind of Vocos (Siuzdak, 2023): log-mel frames in,
amplitude and phase of each frame out, one inverse Fourier transform; learnt from spectra alone, without a second network
that judges. It is kept only as a verdict.
"""
import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse import checkpoints
from mmcourse.codec import DilatedBlock
from mmcourse.judges.hearing import stack
from mmcourse.optim import Optim
from mmcourse.paths import RESULTS
from mmcourse.recipes.codec import CodecBatches
from mmcourse.spectrogram import HOP, WINDOW, hann, log_mel, normalize_loudness
from mmcourse.studies.ch04_sweep import held_out, judge_sound, save, small_sound
from mmcourse.training import Run, train

STEPS, BATCH, SECONDS, WIDTH, LR = 900, 12, 0.64, 128, 2e-3
FILE = RESULTS / "ch04_vocoder.json"


def overlap_add(frames: torch.Tensor) -> torch.Tensor:
    """Windowed frames (B, n, 256), one each 10 ms -> (B, 80 n): the end of the codec's `istft`."""
    n, margin = frames.shape[1], (WINDOW - HOP) // 2
    total = (n - 1) * HOP + WINDOW

    def add(pieces):
        return F.fold(pieces.transpose(1, 2), (1, total), (1, WINDOW), stride=(1, HOP))[:, 0, 0]
    weight = add(hann(WINDOW).square().expand(1, n, WINDOW))
    return (add(frames * hann(WINDOW)) / weight.clamp(min=1e-3))[:, margin:margin + n * HOP]


class Vocoder(nn.Module):
    """Log-mel (B, 64, n), shifted and scaled as the codec's features, -> sound (B, 80 n)."""

    def __init__(self, bands: int = 64, width: int = WIDTH):
        super().__init__()
        bins = WINDOW // 2 + 1
        self.body = nn.Sequential(nn.Conv1d(bands, width, 5, padding=2), DilatedBlock(width), DilatedBlock(width, 2), DilatedBlock(width, 4),
                                  DilatedBlock(width), DilatedBlock(width, 2), nn.Conv1d(width, 3 * bins, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        size, x, y = self.body(features).transpose(1, 2).chunk(3, -1)          # (B, n, 129) each
        length = (x.square() + y.square() + 1e-6).sqrt()
        return overlap_add(torch.fft.irfft(torch.complex(x, y) / length * size.clamp(max=6).exp(), n=WINDOW))


def spectral_distance(sound: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """The mean distance of amplitudes, and of their logarithms, in three resolutions (Yamamoto et al., 2020)."""
    total = 0.0
    for size in (128, 256, 512):
        a, b = (torch.stft(x, size, size // 4, size, hann(size), return_complex=True).abs() for x in (sound, true))
        total = total + (a - b).norm() / b.norm() + (a.clamp(min=1e-2).log() - b.clamp(min=1e-2).log()).abs().mean()
    return total / 3


class Pairs:
    """Batches of (features, sound): the features of half of the rows have gone through the codec's tokens."""

    def __init__(self, codec):
        self.codec, self.batches = codec, CodecBatches(BATCH, SECONDS, humans=False)

    @torch.no_grad()
    def __call__(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        sound, _ = self.batches(rng)
        mel = log_mel(sound, self.codec.filters)
        half = len(sound) // 2
        mel[:half] = self.codec.decode_mel(self.codec.encode(sound[:half]))
        return (mel + 7) / 2, sound


def loss(model: Vocoder, features: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    return spectral_distance(model(features), true)


@torch.no_grad()
def compare(model: Vocoder, codec, judge) -> dict:
    """Both ways back to sound from the same spectrograms: true ones, and those of the codec's four levels."""
    clips, words = held_out()
    sounds = normalize_loudness(stack(clips, 24 * 320))
    inputs = {"true log-mel": log_mel(sounds, codec.filters), "log-mel from 4 levels": codec.decode_mel(codec.encode(sounds))}
    ways = {"Griffin-Lim": codec.mel_to_sound, "network": lambda mel: model((mel + 7) / 2)}
    out = {}
    for source, mel in inputs.items():
        for way, function in ways.items():
            start = time.process_time()
            sound = function(mel)
            seconds = time.process_time() - start
            sound = normalize_loudness(sound).clamp(-1, 1)
            out[f"{source}, {way}"] = {**judge_sound(clips, words, sound, judge),
                                       "times_real_time": round(sound.numel() / 8000 / seconds, 1),
                                       "sound": small_sound(sound[-1][:len(clips[-1])])}
    return out


def main(argv: list[str] | None = None) -> dict:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m mmcourse.studies.ch04_vocoder", description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    codec, judge = checkpoints.load("codec"), checkpoints.load("word_judge")
    model = Vocoder()
    history = train(model, Pairs(codec), loss, steps=args.steps,
                    optim=Optim("muon", lr=LR, weight_decay=0.0, warmup=50), run=Run(progress=False))
    if history.interrupted:
        raise KeyboardInterrupt
    result = {"codec_sha256": checkpoints.manifest()["codec"]["sha256"], "steps": args.steps,
              "cpu_minutes": round(history.cpu_minutes, 2), "parameters": sum(p.numel() for p in model.parameters()),
              "loss": [round(v, 3) for v in history.column("loss")[::5]], "rows": compare(model, codec, judge)}
    save(result, FILE)
    for name, row in result["rows"].items():
        print(name, {k: v for k, v in row.items() if k != "sound"}, flush=True)
    print({k: v for k, v in result.items() if k not in ("rows", "loss")})
    return result


if __name__ == "__main__":
    main()
