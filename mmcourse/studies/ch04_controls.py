"""What keeps a deep voice's pitch? The small codec with a longer window; three seeds, about 7 CPU minutes.

Written down before it was run: the width of the bands limits deep voices, not the window. So at the same bands a
window of 64 ms keeps no more of their pitch than one of 32 ms. Everything else is equal: steps, sounds, bits.
The shipped codec is measured on the same eight voices. (A codec with 128 bands was planned too, and is not here:
its rows were not measured.)
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.codec import CLIP_SAMPLES, AudioCodec, codec_loss
from mmcourse.judges.hearing import stack
from mmcourse.judges.pitch import compare, pitch_track
from mmcourse.optim import Optim
from mmcourse.recipes.codec import LR, MUON_LR, CodecBatches
from mmcourse.spectrogram import FLOOR, HOP, WINDOW, denormalize_mel, hann, normalize_loudness, normalize_mel
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch04 import corpus, held_out_voices
from mmcourse.studies.ch04_limits import analyse, resynthesise
from mmcourse.training import Run, train
from mmcourse.world.speech import VOICES

SEEDS = (0, 1, 2)
# What differs from the first arm: window in samples (8 a millisecond), bands.
ARMS = {"as it is": {}, "window of 64 ms": {"window": 512}}


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 800
    batch: int = 16
    width: int = 64
    warmup: int = 100                   # steps before anything is quantized
    per_voice: int = 16                 # clips of each held-out voice


class WindowCodec(AudioCodec):
    """The chapter's codec on frames of another length; all that it decodes goes through `mel_to_sound`
    whole."""

    def __init__(self, window: int = WINDOW, **options):
        super().__init__(**options)
        self.window = window

    def features(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, 80 n) -> (B, bands, n): as the chapter's, with this window."""
        amplitude = analyse(samples, self.window).abs()[..., :-1] / (hann(self.window).sum() / 2)
        return normalize_mel((self.filters @ amplitude).clamp(min=FLOOR).log())

    @torch.no_grad()
    def mel_to_sound(self, mel: torch.Tensor) -> torch.Tensor:
        """Log-mel (B, bands, n) -> (B, 80 n), by Griffin-Lim with this window."""
        bands = (mel.exp() - FLOOR).clamp(min=0)
        amplitude = (self.mel_pinv @ bands).clamp(min=0) * hann(self.window).sum() / 2
        amplitude = torch.cat([amplitude, amplitude[..., -1:]], -1)
        return resynthesise(amplitude, mel.shape[2] * HOP, self.window).clamp(-1, 1)


@cache
def voices(plan: Plan) -> dict[int, list]:
    """{voice: clips} of the voices that nothing was trained on."""
    rng, spoken = np.random.default_rng(0), corpus()
    return {voice: [spoken.clips[i] for i in rng.permutation(spoken.select(held_out=True, voice=voice))[:plan.per_voice]]
            for voice in held_out_voices()}


@torch.no_grad()
def ways(codec: AudioCodec, clips: list, levels: Sequence[int] = (4,)) -> tuple[list, dict[str, list]]:
    """The clips at one loudness, and {way: what comes back}, each cut to its clip's length."""
    sounds = normalize_loudness(stack(clips, CLIP_SAMPLES))
    features = codec.features(sounds)
    z = codec.encoder(features)
    ids = codec.quantizer(z.transpose(1, 2).flatten(0, 1))[1].view(len(clips), -1, codec.levels)
    mels = {"no tokens": denormalize_mel(features), "nothing rounded": denormalize_mel(codec.decoder(z))}
    mels |= {f"{n} level{'s' * (n > 1)}": codec.decode_mel(ids[..., :n]) for n in levels}
    lengths = [min(len(clip), CLIP_SAMPLES) for clip in clips]

    def cut(sound):
        return [row[:n].numpy().astype(np.float32) for row, n in zip(sound, lengths)]
    return cut(sounds), {name: cut(normalize_loudness(codec.mel_to_sound(mel))) for name, mel in mels.items()}


def pitch_kept(true: list, made: list) -> dict:
    """Of the voiced frames of the true sounds: the share that still has a pitch, and the share that has the
    right one (within a semitone), as means over clips."""
    found = [compare(a, b) for a, b in zip(true, made) if np.isfinite(pitch_track(a)).any()]
    right = [f["voiced"] * (1 - np.nan_to_num(f["off"])) for f in found]
    return {"pitched": round(float(np.mean([f["voiced"] for f in found])), 3), "right": round(float(np.mean(right)), 3)}


def by_voice(codec: AudioCodec, plan: Plan, levels: Sequence[int] = (4,)) -> list[dict]:
    """A row for each held-out voice: its height, and what each way keeps of its pitch."""
    rows = []
    for voice, clips in voices(plan).items():
        true, made = ways(codec, clips, levels)
        heights = [np.nanmedian(track) for track in map(pitch_track, true) if np.isfinite(track).any()]
        rows.append({"voice": VOICES[voice], "hz": round(float(np.median(heights)), 1),
                     "ways": {name: pitch_kept(true, sound) for name, sound in made.items()}})
    return sorted(rows, key=lambda row: row["hz"])


def shipped(plan: Plan) -> list[dict]:
    """The eight voices through the shipped codec itself."""
    return by_voice(checkpoints.load("codec"), plan, (1, 2, 4))


def row(plan: Plan, name: str, seed: int) -> dict:
    """Train one codec and measure it."""
    torch.manual_seed(seed)
    options = {"window": WINDOW, "bands": 64, **ARMS[name]}
    codec = WindowCodec(width=plan.width, warmup=plan.warmup, **options)
    history = finished(train(codec, CodecBatches(plan.batch, humans=False), codec_loss, steps=plan.steps,
                             optim=Optim("muon", lr=LR, muon_lr=MUON_LR, weight_decay=0.0, warmup=100),
                             run=Run(seed=seed, progress=False)))
    return {"window_ms": options["window"] // 8, "bands": options["bands"],
            "cpu_minutes": round(history.cpu_minutes, 2), "voices": by_voice(codec, plan)}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """The shipped codec's voices; each arm with each seed."""
    return [Job("shipped", partial(shipped, plan), section=()),
            *(Job(name, partial(row, plan, name, seed), section=("runs", name), key=str(seed), seed=seed)
              for name in ARMS for seed in seeds)]


def head(plan: Plan) -> dict:
    """The plan, and which shipped codec was measured."""
    return {"plan": asdict(plan), "codec_sha256": checkpoints.identity("codec")}


TOY = Plan(steps=1, batch=2, width=8, warmup=0, per_voice=1)
STUDY = Study("ch04_controls", Plan(), TOY, jobs, head, seeds=SEEDS)
main = STUDY.run
