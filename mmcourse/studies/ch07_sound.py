"""What the diffusion decoder for sound buys, beside a control without noise; about 30 CPU minutes.

Settings are chosen on some clips of the held-out voices and judged on others: words of the world, words that
are not in it, and digits by a person. The controls of the measures: white noise on the plain mel, and the
mean of several samples. STOI and PESQ need the `test` extra.
"""
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.codec import CLIP_SAMPLES, AudioCodec
from mmcourse.judges.hearing import pesq, stack, stoi
from mmcourse.judges.metrics import frechet_distance, t_interval
from mmcourse.recipes import sound_decoder as recipe
from mmcourse.sound_decoder import SoundDecoder, mel_to_sound, plain_mel_and_codes, sound_decoder_loss
from mmcourse.spectrogram import HOP, log_mel, normalize_loudness
from mmcourse.studies import Job, Study
from mmcourse.studies._ch04 import corpus, held_out_voices, joined_pairs, new_words
from mmcourse.studies._ch07 import regress, regression_loss
from mmcourse.training import History
from mmcourse.world import human_digits

JOINED = 8                              # clips in a row, for STOI and PESQ
SEED = 0
BITS_PER_SECOND = 225                   # of the one level
DB_PER_NAT = 20 / math.log(10)          # of an amplitude
LOSSES = {"flow": sound_decoder_loss, "regression": regression_loss}
SHORT_SETS = ("synthetic", "person")    # on which the seeds are compared


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = recipe.STEPS           # of the shipped decoder, and of the control of the same length
    short_steps: int = 200              # of further seeds
    seeds: tuple[int, ...] = (0, 1, 2)
    batch: int = recipe.BATCH
    per_voice: int = 16                 # clips of each of the eight held-out voices
    flow_steps: tuple[int, ...] = (1, 2, 4, 8, 16)
    samples: int = 8                    # whose mean is measured
    noises: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4)     # sizes of white noise, in natural logarithms
    draws: int = 3                      # single samples on each set


@lru_cache(maxsize=2)
def trained(plan: Plan, kind: str, steps: int, seed: int = 0, context: int = 4) -> tuple[SoundDecoder, History]:
    """A decoder (`flow` or `regression`); its training goes on where it was stopped."""
    if kind not in LOSSES:
        raise ValueError(f"kind is one of {', '.join(LOSSES)}, got {kind!r}")
    return recipe.train_decoder(LOSSES[kind], kind, steps, seed, context, plan.batch)


# ---------------------------------------------------------------- the sounds

@dataclass
class Sounds:
    """`clips`: arrays of at most 0.96 s; `words`: what each says, or None where no judge knows the word."""
    clips: list
    words: list | None

    def __post_init__(self):
        self.clips = [np.asarray(clip[:CLIP_SAMPLES], np.float32) for clip in self.clips]


@cache
def sets(per_voice: int) -> dict[str, Sounds]:
    """What is measured, by voices that nothing was trained on; `choosing` is for settings, not for the
    verdict.

    `synthetic`: words of the world; `new words`: words that are not in it; `person`: digits by the held-out
    person (left out if the recordings are not in the cache).
    """
    rng, half = np.random.default_rng(SEED), per_voice // 2
    drawn = [rng.permutation(corpus().select(held_out=True, voice=voice)) for voice in held_out_voices()]
    chosen = {"choosing": [i for d in drawn for i in d[:half]],
              "synthetic": [i for d in drawn for i in d[half:half * 3]]}
    out = {name: Sounds([corpus().clips[i] for i in ids], [corpus().words[i] for i in ids])
           for name, ids in chosen.items()}
    out["new words"] = Sounds(new_words(per_voice), None)
    digits = human_digits.load_human_digits()
    if digits is not None:
        theirs = [i for i, s in enumerate(digits.speakers) if s == human_digits.VALIDATION_SPEAKER]
        theirs = rng.permutation(theirs)[:len(held_out_voices()) * per_voice]
        out["person"] = Sounds([digits.clips[i] for i in theirs], [digits.words[i] for i in theirs])
    return out


# ---------------------------------------------------------------- what is measured of them

def frames(mel: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Log-mel (B, bands, n) -> for each frame in a clip its spectrum and its step to the next: (N, 2
    bands)."""
    both = torch.cat([mel[..., :-1], mel.diff(dim=2)], 1).transpose(1, 2)          # (B, n - 1, 2 bands)
    return both[inside[:, :-1]]


def mel_sharpness(mel: torch.Tensor, inside: torch.Tensor) -> float:
    """Mean absolute step between neighbouring bands and frames: blur lowers it, noise raises it."""
    across, along = mel.diff(dim=1).abs().mean(1)[inside], mel.diff(dim=2).abs().mean(1)[inside[:, :-1]]
    return ((across.mean() + along.mean()) / 2).item()


class SoundMetrics:
    """Measures mels of one set of sounds: each goes the codec's own way back to sound and is compared."""

    def __init__(self, sounds: Sounds, codec: AudioCodec, judge):
        self.sounds, self.codec, self.judge = sounds, codec, judge
        self.samples = stack(sounds.clips, CLIP_SAMPLES)
        self.truth = log_mel(normalize_loudness(self.samples), codec.filters)
        self.ids = codec.encode(self.samples)
        frames = torch.arange(self.truth.shape[2])
        self.inside = torch.stack([frames < len(clip) / HOP for clip in sounds.clips])       # not the padding

    def plain(self) -> torch.Tensor:
        """The plain decoder's mel of one level."""
        return self.codec.decode_mel(self.ids[..., :1])

    def scores(self, sound: torch.Tensor) -> dict[str, np.ndarray]:
        """STOI and PESQ of each group of clips."""
        pairs = joined_pairs(self.sounds.clips, sound, JOINED)
        return {"stoi": np.array([stoi(*pair) for pair in pairs]),
                "pesq": np.array([pesq(*pair) for pair in pairs])}

    @cached_property
    def plain_scores(self) -> dict[str, np.ndarray]:
        """Those of the plain decoder, with which all others are compared."""
        return self.scores(self.sound_of(self.plain()))

    @torch.no_grad()
    def sound_of(self, mel: torch.Tensor) -> torch.Tensor:
        """The codec's way back, 64 sounds at a time."""
        return torch.cat([mel_to_sound(self.codec, part) for part in mel.split(64)])

    @torch.no_grad()
    def row(self, mel: torch.Tensor | None, compare: bool = True) -> dict:
        """One row of the table; None stands for the true sound itself.

        `compare`: STOI and PESQ also with what they gain over the plain decoder, and the 95 % interval of
        that over the groups.
        """
        sound, out = self.samples if mel is None else self.sound_of(mel), {}
        for key, values in self.scores(sound).items():
            out[key] = round(float(values.mean()), 4)
            if compare and mel is not None:
                mean, half = t_interval(values - self.plain_scores[key])
                out[f"{key}_gain"] = [round(v, 4) for v in (mean, mean - half, mean + half)]
        if self.sounds.words is not None:
            out["words"] = round(self.judge.accuracy(sound, self.sounds.words), 4)
        return out if mel is None else {**out, **self.distances(mel)}

    def distances(self, mel: torch.Tensor) -> dict:
        """How far a mel is from the true one, frame by frame and as a set of frames, and how sharp it is."""
        error = (mel - self.truth).transpose(1, 2)[self.inside]                              # (frames, bands)
        return {"mel_db": round(error.abs().mean().item() * DB_PER_NAT, 3),
                "mse": round(error.square().mean().item(), 4),
                "fd": round(frechet_distance(frames(self.truth, self.inside), frames(mel, self.inside)), 3),
                "sharpness": round(mel_sharpness(mel, self.inside), 4)}


@cache
def metrics_of(plan: Plan, name: str) -> SoundMetrics:
    """One set of sounds."""
    return SoundMetrics(sets(plan.per_voice)[name], checkpoints.load("codec"), checkpoints.load("word_judge"))


# ---------------------------------------------------------------- ways to a mel

def sample(model: SoundDecoder, metrics: SoundMetrics, steps: int = 8, seed: int = 0, noise_scale: float = 1.0):
    """The mel of many clips, 64 at a time, each with noise of its own."""
    return torch.cat([model.decode_mel(part[..., :1], metrics.codec, steps, 1000 * seed + i, noise_scale)
                      for i, part in enumerate(metrics.ids.split(64))])


def noisy(codec: AudioCodec, ids: torch.Tensor, size: float) -> torch.Tensor:
    """The control of the measures: the plain mel with white noise on it. FD gained so needed no network."""
    plain = codec.decode_mel(ids[..., :1])
    return plain + size * torch.randn(plain.shape, generator=torch.Generator().manual_seed(0))


def regression_mel(model: SoundDecoder, metrics: SoundMetrics) -> torch.Tensor:
    """The mel of the control: one call of a network that was trained by `regression_loss`."""
    return regress(model, *plain_mel_and_codes(metrics.codec, metrics.ids[..., :1]))


def setting(steps: int, noise_scale: float = 1.0) -> str:
    """The name of a row: how the flow was followed. ("grain": what the file calls the noise.)"""
    return f"flow, {steps} step{'s' * (steps > 1)}" + (f", grain {noise_scale:g}" if noise_scale != 1 else "")


def settings(plan: Plan) -> dict[str, tuple[int, float]]:
    """{name: (steps, noise_scale)}: each number of steps from full and from half the noise; one step also
    from none."""
    return {setting(steps, noise_scale): (steps, noise_scale)
            for steps in plan.flow_steps for noise_scale in ((1.0, 0.5) if steps > 1 else (1.0, 0.0))}


def choose(rows: dict[str, dict]) -> str:
    """The rule, fixed before the table: the best PESQ among the flow's settings whose STOI is not below the
    plain decoder's; if there is none, the best STOI."""
    flows = {name: row for name, row in rows.items() if name.startswith("flow")}
    fair = {name: row for name, row in flows.items() if row["stoi"] >= rows["plain"]["stoi"]}
    return max(fair, key=lambda n: fair[n]["pesq"]) if fair else max(flows, key=lambda n: flows[n]["stoi"])


def choose_noise(rows: dict[str, dict], plan: Plan) -> float:
    """The size of white noise that comes nearest to the true mels in FD."""
    return min(plan.noises, key=lambda size: rows[f"plain + grain {size}"]["fd"])


# ---------------------------------------------------------------- the rows

def setting_rows(plan: Plan) -> dict[str, Callable[[], dict]]:
    """{name: measure}: every setting, on the clips for choosing."""
    def row(mel: Callable, compare: bool = True) -> dict:
        metrics = metrics_of(plan, "choosing")
        return metrics.row(mel(metrics), compare)

    def mean_of_samples(metrics: SoundMetrics) -> torch.Tensor:
        model = checkpoints.load("sound_decoder")
        return torch.stack([sample(model, metrics, 8, seed) for seed in range(plan.samples)]).mean(0)
    out = {"plain": partial(row, SoundMetrics.plain, compare=False),
           "regression": lambda: row(partial(regression_mel, trained(plan, "regression", plan.steps)[0]))}
    for name, (steps, noise_scale) in settings(plan).items():
        out[name] = lambda steps=steps, noise_scale=noise_scale: row(
            lambda metrics: sample(checkpoints.load("sound_decoder"), metrics, steps, 0, noise_scale))
    out[f"mean of {plan.samples} samples"] = partial(row, mean_of_samples)
    for size in plan.noises:
        out[f"plain + grain {size}"] = partial(
            row, lambda metrics, size=size: noisy(metrics.codec, metrics.ids, size))
    return out


def measured_set(plan: Plan, name: str, result: dict) -> dict:
    """Every system on one set, with the settings that were chosen."""
    metrics, other = metrics_of(plan, name), metrics_of(plan, "choosing")
    model = checkpoints.load("sound_decoder")
    codec, ids, chosen = metrics.codec, metrics.ids, result["chosen"]
    steps, noise_scale = settings(plan)[chosen]
    mels = {"plain": metrics.plain(), "plain + grain": noisy(codec, ids, result["grain"]),
            "regression": regression_mel(trained(plan, "regression", plan.steps)[0], metrics),
            "flow, 1 step": sample(model, metrics, 1), chosen: sample(model, metrics, steps, 0, noise_scale)}
    mels |= {f"flow, 8 steps, draw {s}": sample(model, metrics, 8, s) for s in range(plan.draws)}
    mels |= {f"{n} levels": codec.decode_mel(ids[..., :n]) for n in (2, 4)}
    mels |= {"true mel": metrics.truth, "true sound": None}
    floor = frechet_distance(frames(metrics.truth, metrics.inside), frames(other.truth, other.inside))
    return {"clips": len(ids), "groups": len(ids) // JOINED, "fd_other_truth": round(floor, 3),
            "rows": {system: metrics.row(mel, compare=system != "plain") for system, mel in mels.items()}}


def short_rows(plan: Plan) -> dict[str, tuple]:
    """{name: (kind, seed, context, steps)}: training seeds at a short budget, and the flow with a narrow
    context."""
    runs = [(kind, seed, 4) for seed in plan.seeds for kind in ("flow", "regression")] + [("flow", 0, 1)]
    rows = [(*run, steps) for run in runs for steps in ((1, 8) if run[0] == "flow" else (0,))]
    return {f"{setting(steps) if steps else kind}{', narrow' * (context == 1)}, seed {seed}":
            (kind, seed, context, steps) for kind, seed, context, steps in rows}


def short_row(plan: Plan, name: str, kind: str, seed: int, context: int, steps: int) -> dict:
    """One short training on one set."""
    (model, _), metrics = trained(plan, kind, plan.short_steps, seed, context), metrics_of(plan, name)
    return metrics.row(sample(model, metrics, steps, seed) if steps else regression_mel(model, metrics))


def cost(plan: Plan) -> dict[str, float]:
    """CPU milliseconds for a second of sound, one of 0.96 s at a time: the mel alone, and the way back."""
    metrics, model = metrics_of(plan, "choosing"), checkpoints.load("sound_decoder")
    codec, one = metrics.codec, metrics.ids[:1, :, :1]
    ways = {"plain": lambda: codec.decode_mel(one)}
    ways |= {setting(n): lambda n=n: model.decode_mel(one, codec, n, 0) for n in (1, 2, 4, 8)}
    mel, out = codec.decode_mel(one), {}
    ways["Griffin-Lim"] = lambda: mel_to_sound(codec, mel)
    for name, way in ways.items():
        way()
        times = []
        for _ in range(5):
            start = time.process_time()
            way()
            times.append(time.process_time() - start)
        out[name] = round(float(np.median(times)) / 0.96 * 1000, 1)
    return out


def minutes(plan: Plan) -> dict:
    """What the decoder and its control took to train."""
    return {"flow": checkpoints.manifest()["sound_decoder"]["cpu_minutes"],
            "regression": round(trained(plan, "regression", plan.steps)[1].cpu_minutes, 2)}


def parameters(model) -> int:
    """How many numbers a network has."""
    return sum(p.numel() for p in model.parameters())


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Costs; every setting on the clips for choosing; the choice; every system on the other sets; seeds."""
    there = ["synthetic", "new words"] + ["person"] * human_digits.folder().exists()
    facts = {"cpu_minutes": partial(minutes, plan),
             "parameters": lambda: parameters(checkpoints.load("sound_decoder")),
             "bits_per_second": lambda: BITS_PER_SECOND,
             "plain_parameters": lambda: parameters(checkpoints.load("codec").decoder)}
    return [*(Job(name, measure, section=()) for name, measure in facts.items()),
            *(Job(name, measure, section=("knobs",)) for name, measure in setting_rows(plan).items()),
            Job("chosen", lambda result: choose(result["knobs"]), section=(), derived=True),
            Job("grain", lambda result: choose_noise(result["knobs"], plan), section=(), derived=True),
            *(Job(name, partial(measured_set, plan, name), section=("sets",), derived=True) for name in there),
            Job("ms_per_second", partial(cost, plan), section=()),
            Job("seeds", lambda: plan.short_steps, section=("seeds",), key="steps"),
            *(Job(f"{name}: {row}", partial(short_row, plan, name, *run), section=("seeds", "rows", name), key=row)
              for name in SHORT_SETS if name in there for row, run in short_rows(plan).items())]


def head(plan: Plan) -> dict:
    """Which codec and which decoder were measured, and how long the decoder was trained."""
    return {"codec_sha256": checkpoints.identity("codec"), "sha256": checkpoints.identity("sound_decoder"),
            "steps": plan.steps}


TOY = Plan(steps=1, short_steps=1, seeds=(0,), batch=2, per_voice=4, flow_steps=(1, 2), samples=2, noises=(0.1,),
           draws=1)
STUDY = Study("ch07_sound", Plan(), TOY, jobs, head)
main = STUDY.run
