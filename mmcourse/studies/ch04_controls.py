"""The small codec with one thing changed: window, bands, people it met; three seeds, about 45 CPU minutes.

Written down before it was run. Hypothesis 1, of deep voices: the width of the bands limits them, not the
window. So at 64 bands a window of 64 ms keeps no more of their pitch than one of 32 ms; 128 bands keep more
than 64. Hypothesis 2, of people: what an unknown person loses is lost for want of voices. So a codec that
met three people keeps more of an unknown one's words than one that met none; a codec that met one person
lies between. Everything else is equal: steps, sounds, bits. It needs the human digits and the `test` extra.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.codec import CLIP_SAMPLES, AudioCodec, codec_loss
from mmcourse.judges.hearing import pesq, stack, stoi
from mmcourse.judges.pitch import compare, pitch_track
from mmcourse.optim import Optim
from mmcourse.recipes.codec import LR, MUON_LR, CodecBatches
from mmcourse.spectrogram import FLOOR, HOP, WINDOW, denormalize_mel, hann, normalize_loudness, normalize_mel
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch04 import corpus, held_out_voices
from mmcourse.studies.ch04_limits import analyse, in_a_row, resynthesise
from mmcourse.training import Run, train
from mmcourse.world.human_digits import SPEAKERS, VALIDATION_SPEAKER, load_human_digits
from mmcourse.world.speech import VOICES

SEEDS = (0, 1, 2)
# What differs from the first arm: window in samples (8 a millisecond), bands, people that the codec meets.
ARMS = {"as it is": {}, "window of 64 ms": {"window": 512}, "128 bands": {"bands": 128},
        "64 ms and 128 bands": {"window": 512, "bands": 128}, "one person": {"people": 1}, "three people": {"people": 3}}


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 2000
    batch: int = 16
    width: int = 96
    warmup: int = 100                   # steps before anything is quantized
    per_voice: int = 16                 # clips of each held-out voice
    person: int = 250                   # clips of the held-out person


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


class SomePeople(CodecBatches):
    """The recipe's batches with the recordings of some people only."""

    def __init__(self, batch: int, people: Sequence[str]):
        super().__init__(batch, humans=False)
        digits = recordings() if people else None
        self.human = [clip for clip, speaker, out in zip(digits.clips, digits.speakers, digits.held_out)
                      if speaker in people and not out] if digits else []


def recordings():
    """The human digits. SystemExit without them."""
    digits = load_human_digits()
    if digits is None:
        raise SystemExit("this needs the human digits: mmcourse data human-digits")
    return digits


@cache
def voices(plan: Plan) -> dict[int, list]:
    """{voice: clips} of the voices that nothing was trained on."""
    rng, spoken = np.random.default_rng(0), corpus()
    return {voice: [spoken.clips[i] for i in rng.permutation(spoken.select(held_out=True, voice=voice))[:plan.per_voice]]
            for voice in held_out_voices()}


@cache
def person(plan: Plan) -> tuple[list, list]:
    """Clips and words of the person that nothing was trained on."""
    digits = recordings()
    own = [i for i, speaker in enumerate(digits.speakers) if speaker == VALIDATION_SPEAKER]
    own = np.random.default_rng(0).permutation(own)[:plan.person]
    return [digits.clips[i] for i in own], [digits.words[i] for i in own]


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


def by_person(codec: AudioCodec, plan: Plan) -> dict:
    """{way: words heard, STOI, PESQ, pitch} for the person that nothing was trained on."""
    (clips, words), judge, rows = person(plan), checkpoints.load("word_judge"), {}
    true, made = ways(codec, clips)
    for name, sound in {"true sound": true, **made}.items():
        pairs = list(zip(in_a_row(true), in_a_row(sound)))
        rows[name] = {"words": round(judge.accuracy(sound, words), 4), **pitch_kept(true, sound),
                      "stoi": round(float(np.mean([stoi(*p) for p in pairs])), 4),
                      "pesq": round(float(np.mean([pesq(*p) for p in pairs])), 3)}
    return rows


def shipped(plan: Plan) -> list[dict]:
    """The eight voices through the shipped codec itself."""
    return by_voice(checkpoints.load("codec"), plan, (1, 2, 4))


def row(plan: Plan, name: str, seed: int) -> dict:
    """Train one codec and measure it. One person: another for each seed, so that all three have their
    turn."""
    torch.manual_seed(seed)
    options = {"window": WINDOW, "bands": 64, "people": 0, **ARMS[name]}
    known = [speaker for speaker in SPEAKERS if speaker != VALIDATION_SPEAKER]
    met = {0: [], 1: [known[seed % len(known)]], 3: known}[options["people"]]
    codec = WindowCodec(options["window"], bands=options["bands"], width=plan.width, warmup=plan.warmup)
    history = finished(train(codec, SomePeople(plan.batch, met), codec_loss, steps=plan.steps,
                             optim=Optim("muon", lr=LR, muon_lr=MUON_LR, weight_decay=0.0, warmup=100),
                             run=Run(seed=seed, progress=False)))
    return {"window_ms": options["window"] // 8, "bands": options["bands"], "people": met,
            "cpu_minutes": round(history.cpu_minutes, 2), "voices": by_voice(codec, plan),
            "person": by_person(codec, plan)}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """The shipped codec's voices; each arm with each seed."""
    return [Job("shipped", partial(shipped, plan), section=()),
            *(Job(name, partial(row, plan, name, seed), section=("runs", name), key=str(seed), seed=seed)
              for name in ARMS for seed in seeds)]


def head(plan: Plan) -> dict:
    """The plan, and which shipped codec was measured."""
    return {"plan": asdict(plan), "codec_sha256": checkpoints.identity("codec")}


TOY = Plan(steps=1, batch=2, width=8, warmup=0, per_voice=1, person=10)
STUDY = Study("ch04_controls", Plan(), TOY, jobs, head, seeds=SEEDS)
main = STUDY.run
