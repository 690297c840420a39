"""How long should a frame be, and how large its codebook? About 8 CPU minutes.

Every configuration of chapter 04's table is trained for the same number of steps on the same sounds, the two that
are compared with two seeds. STOI and PESQ need the `test` extra.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import nn

from mmcourse import checkpoints
from mmcourse.bits import entropy_bits
from mmcourse.codec import CLIP_SAMPLES, AudioCodec, codec_loss, in_pieces
from mmcourse.judges.hearing import stack
from mmcourse.optim import Optim
from mmcourse.recipes.codec import CodecBatches
from mmcourse.spectrogram import HOP, check_sound, dc_offset, denormalize_mel, log_mel, normalize_loudness
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch04 import corpus, held_out_clips, judge_sound, small_sound
from mmcourse.training import Run, train

FRAMES = (10, 20, 40)                   # milliseconds
CODES = (1024, 2048, 8192)              # entries of the one codebook
VOICES = 8                              # held out
SEEDS = (0, 1)                          # the sounds of the first are kept
# The rows that decide the second half of the chapter's hypothesis have both seeds, the others the first.
COMPARED = ("40 ms, 4 x 512", "20 ms, 8192")
DB_PER_NAT = 20 / np.log(10)            # of an amplitude


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 500
    batch: int = 16
    width: int = 64
    lr: float = 2e-3
    muon_lr: float = 0.02
    clips: int = 128                    # as many of each held-out voice
    heard: str = "elephant"             # the word whose sound is kept, by the last held-out voice
    warmup: int = 100                   # steps before anything is quantized
    counted: int = 2                    # every second clip of the held-out voices counts the codes in use


class FrameCodec(AudioCodec):
    """The chapter's codec with frames of 10, 20 or 40 ms: the two strides are all that differs."""

    def __init__(self, milliseconds: int = 40, **options):
        super().__init__(**options)
        if milliseconds not in FRAMES:
            raise ValueError(f"frames are {FRAMES} ms long, got {milliseconds}")
        width, stride = self.config["width"], milliseconds // 10
        self.config["milliseconds"] = milliseconds
        self.frame_rate, self.samples_per_frame, self.stride = 1000 // milliseconds, 8 * milliseconds, stride
        self.encoder[4] = nn.Conv1d(width, width, stride, stride=stride)
        self.decoder[3] = nn.ConvTranspose1d(width, width, stride, stride=stride)

    @torch.no_grad()
    def encode(self, samples) -> torch.Tensor:
        """As `AudioCodec.encode`, for this stride: (B, samples) -> (B, frames, levels)."""
        samples, frame = check_sound(samples), self.samples_per_frame
        samples = samples - dc_offset(samples)
        samples = normalize_loudness(nn.functional.pad(samples, (0, -samples.shape[1] % frame)))
        z = in_pieces(lambda x: self.encoder(self.features(x)), samples, frame, 1)
        B, dim, t = z.shape
        return self.quantizer(z.transpose(1, 2).reshape(B * t, dim))[1].view(B, t, self.levels)

    @torch.no_grad()
    def decode_mel(self, ids) -> torch.Tensor:
        """As `AudioCodec.decode_mel`, for this stride: (B, frames, L) -> (B, bands, stride x frames)."""
        z = self.quantizer.decode(self.check_ids(ids))
        return denormalize_mel(in_pieces(self.decoder, z.transpose(1, 2), 1, self.stride))


def configurations() -> dict[str, dict]:
    """{name: what to build}: the shipped shape (four levels of 512 codes), then one level for each length and
    codebook."""
    out = {"40 ms, 4 x 512": {"milliseconds": 40, "codebook_size": 512, "levels": 4}}
    return out | {f"{ms} ms, {codes}": {"milliseconds": ms, "codebook_size": codes, "levels": 1}
                  for ms in reversed(FRAMES) for codes in CODES}


def clips_of(plan: Plan) -> tuple[list, list]:
    """The clips that are measured, and their words."""
    return held_out_clips(plan.clips // VOICES, plan.heard)


def in_use(codec: AudioCodec, every: int) -> torch.Tensor:
    """The ids of all frames of every n-th clip of the held-out voices: (frames, levels)."""
    clips = [corpus().clips[i] for i in corpus().select(held_out=True)[::every]]
    parts = [clips[a:a + 64] for a in range(0, len(clips), 64)]
    ids = [(row, len(clip)) for part in parts for row, clip in zip(codec.encode(stack(part, CLIP_SAMPLES)), part)]
    return torch.cat([row[:-(-n // codec.samples_per_frame)] for row, n in ids])


@torch.no_grad()
def measure(codec: AudioCodec, plan: Plan) -> list[dict]:
    """What the chapter's table says of one trained codec: a row for each number of levels that the chapter
    plays."""
    (clips, words), judge = clips_of(plan), checkpoints.load("word_judge")
    sounds = stack(clips, CLIP_SAMPLES)
    ids, many = codec.encode(sounds), in_use(codec, plan.counted)
    truth = log_mel(normalize_loudness(sounds), codec.filters)
    inside = torch.stack([torch.arange(truth.shape[2]) < len(c) / HOP for c in clips])     # not the padding
    rows = []
    for n in {1: (1,), 4: (1, 2, 4)}[codec.levels]:
        mel, out = codec.decode_mel(ids[..., :n]), codec.decode(ids[..., :n])
        distance = (mel - truth).abs().mean(1)[inside].mean().item() * DB_PER_NAT
        use = torch.bincount(many[:, n - 1], minlength=codec.codebook_size)
        rows.append({"levels": n, "bits_per_second": round(codec.frame_rate * n * np.log2(codec.codebook_size), 1),
                     "tokens_per_second": codec.frame_rate * n, **judge_sound(clips, words, out, judge),
                     "mel_db": round(distance, 3), "codes_used": int((use > 0).sum()), "frames": int(use.sum()),
                     "entropy_bits": round(entropy_bits(use), 2), "sound": small_sound(out[-1][:len(clips[-1])])})
    return rows


def row(plan: Plan, spec: dict, seed: int) -> dict:
    """Train one configuration with one seed and measure it."""
    torch.manual_seed(seed)
    codec = FrameCodec(width=plan.width, warmup=plan.warmup, **spec)
    history = finished(train(codec, CodecBatches(plan.batch, humans=False), codec_loss, steps=plan.steps,
                             optim=Optim("muon", lr=plan.lr, muon_lr=plan.muon_lr, weight_decay=0.0, warmup=50),
                             run=Run(seed=seed, progress=False)))
    rows = measure(codec, plan)
    if seed != SEEDS[0]:
        rows = [{name: value for name, value in found.items() if name != "sound"} for found in rows]
    return {**spec, "rows": rows, "cpu_minutes": round(history.cpu_minutes, 2),
            "training_mel": round(float(np.mean(history.column("mel")[-3:])), 4)}


@cache
def without_tokens(plan: Plan) -> dict[str, torch.Tensor]:
    """The ceilings: the true sounds, and their log-mel through Griffin-Lim, (B, samples) each."""
    sounds, codec = stack(clips_of(plan)[0], CLIP_SAMPLES), AudioCodec(width=8)
    return {"true": sounds,
            "log-mel, no tokens": codec.mel_to_sound(log_mel(normalize_loudness(sounds), codec.filters))}


def ceiling(plan: Plan, name: str) -> dict:
    """The row of what no token has touched."""
    (clips, words), sound = clips_of(plan), without_tokens(plan)[name]
    return {**judge_sound(clips, words, sound, checkpoints.load("word_judge")),
            "sound": small_sound(sound[-1][:len(clips[-1])])}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Two ceilings and every configuration, the compared ones with each seed."""
    return [*(Job(name, partial(ceiling, plan, name), section=("reference",))
              for name in ("true", "log-mel, no tokens")),
            *(Job(name, partial(row, plan, spec, seed), section=("runs", name), key=str(seed), seed=seed)
              for name, spec in configurations().items() for seed in seeds
              if seed == SEEDS[0] or name in COMPARED)]


def head(plan: Plan) -> dict:
    """The plan."""
    return {"plan": {name: value for name, value in asdict(plan).items() if name not in ("warmup", "counted")}}


TOY = Plan(steps=1, batch=2, width=8, clips=VOICES, warmup=0, counted=50)
STUDY = Study("ch04_sweep", Plan(), TOY, jobs, head, seeds=SEEDS)
main = STUDY.run
