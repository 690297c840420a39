"""The diffusion decoder for sound: `python -m mmcourse train sound_decoder`, 8 CPU minutes; how it is
measured.

`python -m mmcourse train sound_decoder --study` also trains the controls, measures all of them beside the
plain decoder and writes `data/results/ch07_sound.json`: about half an hour of one core. STOI and PESQ
need the `test` extra.
"""

import json
import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.codec import AudioCodec
from mmcourse.diffusion import flow_loss
from mmcourse.judges.hearing import pesq, stack, stoi
from mmcourse.judges.picture_net import frechet_distance
from mmcourse.optim import Optim
from mmcourse.paths import CHECKPOINTS, RESULTS, cache_dir
from mmcourse.recipes import options
from mmcourse.recipes.codec import CodecBatches
from mmcourse.sound_decoder import SoundDecoder, mel_to_sound, plain_mel_and_codes
from mmcourse.spectrogram import log_mel, normalize_loudness
from mmcourse.studies.ch04_sweep import save
from mmcourse.training import History, Run, train
from mmcourse.world.human_digits import VALIDATION_SPEAKER, load_human_digits
from mmcourse.world.scene import WORDS
from mmcourse.world.speech import VOICES, _finish, _speak, load_speech

STEPS, SHORT, BATCH, LR, MUON_LR, AVERAGE = 2400, 200, 32, 1.5e-3, 0.02, 0.998
FILE = RESULTS / "ch07_sound.json"
LENGTH, PER_VOICE, JOINED, SEED = (
    24 * 320,
    16,
    8,
    0,
)  # samples; clips of each held-out voice; clips in a group
T95 = {8: 2.365, 16: 2.131}  # Student's t for the mean of so many groups: 7 and 15 degrees of freedom
NEW_WORDS = """river mountain window garden summer winter doctor kitchen market engine pencil forest morning
picture silver travel number village weather bottle""".split()  # not one of them is in the world
GRAINS = (0.1, 0.2, 0.3, 0.4)  # natural logarithms: how much white noise the control of the ruler has
SHORT_RUNS = [(kind, seed, 4) for seed in (0, 1, 2) for kind in ("flow", "regression")] + [("flow", 0, 1)]


def make_batch(codec: AudioCodec):
    """`batch(rng)` for `train`: the codec's training sounds as true log-mel, plain log-mel and code
    vectors."""
    draw = CodecBatches(BATCH)

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sound = normalize_loudness(draw(rng)[0])
        return log_mel(sound, codec.filters), *plain_mel_and_codes(codec, codec.encode(sound)[..., :1])

    return batch


def loss(model: SoundDecoder, truth: torch.Tensor, plain: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The flow's data is what the plain decoder got wrong, in units of the model's `error`."""
    return flow_loss(model, (truth - plain) / model.residual_std, plain, codes)


def regression_loss(
    model: SoundDecoder, truth: torch.Tensor, plain: torch.Tensor, codes: torch.Tensor
) -> torch.Tensor:
    """The control: the same network without noise or time, trained to say the mean of the plain decoder's
    error."""
    guess = model(torch.zeros_like(plain), torch.zeros(len(plain)), plain, codes)
    return (guess - (truth - plain) / model.residual_std).square().mean()


LOSSES = {"flow": loss, "regression": regression_loss}


def train_decoder(
    kind: str = "flow", steps: int = STEPS, seed: int = 0, context: int = 4, progress: bool = True
) -> tuple[SoundDecoder, History]:
    """Train one decoder (`kind`: `flow` or `regression`), or go on with a run that was stopped; 0.2 s a
    step."""
    if kind not in LOSSES:
        raise ValueError(f"kind is one of {', '.join(LOSSES)}, got {kind!r}")
    codec, made_with = checkpoints.load("codec"), checkpoints.identity("codec")
    torch.manual_seed(seed)
    model = SoundDecoder(bands=codec.config["bands"], code_dim=codec.config["dim"], context=context)
    run = cache_dir() / "runs" / f"sound-{kind}-{context}-{steps}-{seed}-{made_with[:8]}.pt"
    history = train(model, make_batch(codec), LOSSES[kind], steps=steps,
                    optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=100, ema_decay=AVERAGE if steps > 1000 else 0.99),
                    run=Run(seed=seed, resume=run, log_every=20, save_every=200, progress=progress))
    if history.interrupted:
        raise SystemExit(f"interrupted; the same command goes on from {run}")
    return model, history


# ---------------------------------------------------------------- the measurement


@dataclass
class Sounds:
    """`clips`: arrays of at most 0.96 s; `words`: what each says, or None where no judge knows the word."""

    clips: list
    words: list | None

    def __post_init__(self):
        self.clips = [np.asarray(c[:LENGTH], np.float32) for c in self.clips]


def sets(per_voice: int = PER_VOICE) -> dict[str, Sounds]:
    """What is measured, by voices that nothing was trained on; `choosing` is for choosing knobs, not for
    the verdict.

    `synthetic`: words of the world; `new words`: words that are not in the world; `person`: digits by the
    held-out person (left out if the recordings are not in the cache).
    """
    corpus, rng = load_speech(), np.random.default_rng(SEED)
    voices = sorted({v for v, out in zip(corpus.voices, corpus.held_out, strict=True) if out})
    drawn = [rng.permutation(corpus.select(held_out=True, voice=v)) for v in voices]
    half = per_voice // 2
    chosen = {
        "choosing": [i for d in drawn for i in d[:half]],
        "synthetic": [i for d in drawn for i in d[half : half * 3]],
    }
    out = {
        name: Sounds([corpus.clips[i] for i in ids], [corpus.words[i] for i in ids])
        for name, ids in chosen.items()
    }
    assert not set(NEW_WORDS) & set(WORDS)
    jobs = [
        (NEW_WORDS[(k + 10 * n) % 20], VOICES[v], 40 + k, 150 + 3 * k)
        for n, v in enumerate(voices)
        for k in range(per_voice)
    ]
    out["new words"] = Sounds(
        [_finish(sound, rate).astype(np.float32) / 32767 for sound, rate in _speak(jobs)], None
    )
    digits = load_human_digits()
    if digits is not None:
        theirs = rng.permutation([i for i, s in enumerate(digits.speakers) if s == VALIDATION_SPEAKER])[
            : 8 * per_voice
        ]
        out["person"] = Sounds([digits.clips[i] for i in theirs], [digits.words[i] for i in theirs])
    return out


def frames(mel: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Log-mel (B, bands, n) -> a row for each frame in a clip: its spectrum and its step to the next (N, 2
    bands)."""
    both = torch.cat([mel[..., :-1], mel.diff(dim=2)], 1).transpose(1, 2)  # (B, n - 1, 2 bands)
    return both[inside[:, :-1]]


def sharpness(mel: torch.Tensor, inside: torch.Tensor) -> float:
    """Mean absolute step between neighbouring bands and frames: blur lowers it, noise raises it."""
    across, along = mel.diff(dim=1).abs().mean(1)[inside], mel.diff(dim=2).abs().mean(1)[inside[:, :-1]]
    return ((across.mean() + along.mean()) / 2).item()


class Ruler:
    """Measures mels of one set of sounds: each goes the codec's own way back to sound and is compared."""

    def __init__(self, sounds: Sounds, codec: AudioCodec, judge):
        self.sounds, self.codec, self.judge = sounds, codec, judge
        samples = stack(sounds.clips, LENGTH)
        self.samples, self.truth, self.ids = (
            samples,
            log_mel(normalize_loudness(samples), codec.filters),
            codec.encode(samples),
        )
        self.inside = torch.stack([torch.arange(self.truth.shape[2]) < len(c) / 80 for c in sounds.clips])
        self.scores = {}

    def pairs(self, sound: torch.Tensor) -> list[tuple]:
        """Eight clips in a row, true and decoded: STOI and PESQ need more than a word."""
        clips = self.sounds.clips
        return [
            tuple(
                np.concatenate([np.asarray(x[i])[: len(clips[i])] for i in range(a, a + JOINED)])
                for x in (clips, sound)
            )
            for a in range(0, len(clips), JOINED)
        ]

    @torch.no_grad()
    def __call__(self, name: str, mel: torch.Tensor | None) -> dict:
        """One row of the table; None stands for the true sound itself. STOI and PESQ with the gain over
        the row
        `plain` and its 95 % interval over groups of eight clips, if `plain` was measured before."""
        sound = (
            self.samples if mel is None else torch.cat([mel_to_sound(self.codec, m) for m in mel.split(64)])
        )
        pairs, row = self.pairs(sound), {}
        self.scores[name] = {
            "stoi": np.array([stoi(*p) for p in pairs]),
            "pesq": np.array([pesq(*p) for p in pairs]),
        }
        for key, values in self.scores[name].items():
            row[key] = round(float(values.mean()), 4)
            if name != "plain" and mel is not None and "plain" in self.scores:
                gain = values - self.scores["plain"][key]
                half = T95[len(gain)] * gain.std(ddof=1) / math.sqrt(len(gain))
                row[f"{key}_gain"] = [
                    round(float(v), 4) for v in (gain.mean(), gain.mean() - half, gain.mean() + half)
                ]
        if self.sounds.words is not None:
            row["words"] = round(self.judge.accuracy(sound, self.sounds.words), 4)
        if mel is not None:
            row["mel_db"] = round(
                (mel - self.truth).abs().mean(1)[self.inside].mean().item() * 20 / math.log(10), 3
            )
            row["mse"] = round((mel - self.truth).square().mean(1)[self.inside].mean().item(), 4)
            row["fd"] = round(frechet_distance(frames(self.truth, self.inside), frames(mel, self.inside)), 3)
            row["sharpness"] = round(sharpness(mel, self.inside), 4)
        return row


def draw(
    model: SoundDecoder,
    ids: torch.Tensor,
    codec: AudioCodec,
    steps: int = 8,
    seed: int = 0,
    grain: float = 1.0,
):
    """`decode_mel` of many clips, 64 at a time, each with noise of its own."""
    return torch.cat(
        [
            model.decode_mel(part[..., :1], codec, steps, 1000 * seed + i, grain)
            for i, part in enumerate(ids.split(64))
        ]
    )


def grainy(codec: AudioCodec, ids: torch.Tensor, size: float) -> torch.Tensor:
    """The control of the ruler: the plain mel with white noise on it. FD gained so needed no network."""
    plain = codec.decode_mel(ids[..., :1])
    return plain + size * torch.randn(plain.shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def regress(model: SoundDecoder, ids: torch.Tensor, codec: AudioCodec) -> torch.Tensor:
    """The mel of the control: one call of a network that was trained by `regression_loss`."""
    plain, codes = plain_mel_and_codes(codec, ids[..., :1])
    return plain + model.residual_std * model(torch.zeros_like(plain), torch.zeros(len(plain)), plain, codes)


def cost(model: SoundDecoder, codec: AudioCodec, ids: torch.Tensor) -> dict[str, float]:
    """CPU milliseconds for a second of sound, one sound of 0.96 s at a time: the mel alone, and the way
    back."""
    one, ways = ids[:1, :, :1], {"plain": lambda: codec.decode_mel(one)}
    ways |= {setting(n, 1.0): lambda n=n: model.decode_mel(one, codec, n, 0) for n in (1, 2, 4, 8)}
    mel = codec.decode_mel(one)
    ways["Griffin-Lim"] = lambda: mel_to_sound(codec, mel)
    out = {}
    for name, way in ways.items():
        way()
        times = []
        for _ in range(5):
            start = time.process_time()
            way()
            times.append(time.process_time() - start)
        out[name] = round(float(np.median(times)) / 0.96 * 1000, 1)
    return out


def choose(rows: dict[str, dict]) -> str:
    """The rule, fixed before the table: the best PESQ among the flow's settings whose STOI is not below
    the plain decoder's; if there is none, the best STOI."""
    flows = {name: row for name, row in rows.items() if name.startswith("flow")}
    fair = {name: row for name, row in flows.items() if row["stoi"] >= rows["plain"]["stoi"]}
    return max(fair, key=lambda n: fair[n]["pesq"]) if fair else max(flows, key=lambda n: flows[n]["stoi"])


def study(model: SoundDecoder) -> dict:
    """Train the controls (or take them from the cache), measure everything, write the results."""
    torch.set_num_threads(1)
    codec, judge = checkpoints.load("codec"), checkpoints.load("word_judge")
    entry = checkpoints.manifest()["sound_decoder"]
    control, history = train_decoder("regression", entry["steps"])
    rulers = {name: Ruler(sounds, codec, judge) for name, sounds in sets().items()}
    ruler = rulers["choosing"]
    knobs = {
        "plain": ruler("plain", codec.decode_mel(ruler.ids[..., :1])),
        "regression": ruler("regression", regress(control, ruler.ids, codec)),
    }
    for steps in (1, 2, 4, 8, 16):
        for grain in (1.0, 0.5) if steps > 1 else (1.0, 0.0):
            name = setting(steps, grain)
            knobs[name] = ruler(name, draw(model, ruler.ids, codec, steps, 0, grain))
    draws = torch.stack([draw(model, ruler.ids, codec, 8, seed) for seed in range(8)])
    knobs["mean of 8 samples"] = ruler("mean of 8 samples", draws.mean(0))
    for size in GRAINS:
        knobs[f"plain + grain {size}"] = ruler("grain", grainy(codec, ruler.ids, size))
    chosen, grain_size = choose(knobs), min(GRAINS, key=lambda size: knobs[f"plain + grain {size}"]["fd"])
    result = {
        "codec_sha256": checkpoints.identity("codec"),
        "sha256": entry["sha256"],
        "steps": entry["steps"],
        "cpu_minutes": {"flow": entry["cpu_minutes"], "regression": round(history.cpu_minutes, 2)},
        "parameters": sum(p.numel() for p in model.parameters()),
        "bits_per_second": 225,
        "plain_parameters": sum(p.numel() for p in codec.decoder.parameters()),
        "chosen": chosen,
        "grain": grain_size,
        "knobs": knobs,
        "sets": {},
        "ms_per_second": cost(model, codec, ruler.ids),
    }
    chosen_steps, chosen_grain = next(
        (s, g) for s in (1, 2, 4, 8, 16) for g in (1.0, 0.5, 0.0) if setting(s, g) == chosen
    )
    for name, ruler in rulers.items():
        if name == "choosing":
            continue
        ids = ruler.ids
        mels = {
            "plain": codec.decode_mel(ids[..., :1]),
            "plain + grain": grainy(codec, ids, grain_size),
            "regression": regress(control, ids, codec),
            "flow, 1 step": draw(model, ids, codec, 1),
            chosen: draw(model, ids, codec, chosen_steps, 0, chosen_grain),
        }
        mels |= {f"flow, 8 steps, draw {s}": draw(model, ids, codec, 8, s) for s in range(3)}
        mels |= {f"{n} levels": codec.decode_mel(ids[..., :n]) for n in (2, 4)} | {
            "true mel": ruler.truth,
            "true sound": None,
        }
        rows = {system: ruler(system, mel) for system, mel in mels.items()}
        other = rulers["choosing"]
        floor = frechet_distance(frames(ruler.truth, ruler.inside), frames(other.truth, other.inside))
        result["sets"][name] = {
            "clips": len(ids),
            "groups": len(ids) // JOINED,
            "fd_other_truth": round(floor, 3),
            "rows": rows,
        }
        print(name, json.dumps(rows, indent=1), flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    save(result, FILE)  # the short runs take as long as all the rest
    result["seeds"] = short_runs(rulers, codec)
    save(result, FILE)
    return result


def setting(steps: int, grain: float) -> str:
    """The name of a row: how the flow was followed."""
    return f"flow, {steps} step{'s' * (steps > 1)}" + (f", grain {grain:g}" if grain != 1 else "")


def short_runs(rulers: dict, codec: AudioCodec) -> dict:
    """Three training seeds at a short budget, and the flow with a narrow context, for two sets of sounds."""
    out: dict = {"steps": SHORT, "rows": {}}
    for name in ("synthetic", "person"):
        if name in rulers:
            ruler, rows = rulers[name], {}
            for kind, seed, context in SHORT_RUNS:
                model, _ = train_decoder(kind, SHORT, seed, context, progress=False)
                for steps in (1, 8) if kind == "flow" else (0,):
                    mel = (
                        draw(model, ruler.ids, codec, steps, seed)
                        if steps
                        else regress(model, ruler.ids, codec)
                    )
                    label = (
                        (f"{setting(steps, 1.0)}" if steps else kind)
                        + (", narrow" if context == 1 else "")
                        + f", seed {seed}"
                    )
                    rows[label] = ruler(label, mel)
            out["rows"][name] = rows
    return out


def main(argv: list[str] | None = None, folder=CHECKPOINTS) -> SoundDecoder:
    """Train (or go on training) the decoder and ship it; with `--study` train the controls and measure as
    well."""
    argv = list(argv or [])
    wanted = "--study" in argv
    args = options("sound_decoder", [a for a in argv if a != "--study"], STEPS)
    model, history = train_decoder("flow", args.steps, args.seed)
    made_with = checkpoints.identity("codec")

    def ship(metrics: dict) -> None:
        checkpoints.save(
            "sound_decoder",
            model,
            seed=args.seed,
            steps=args.steps,
            cpu_minutes=history.cpu_minutes,
            metrics=metrics,
            codec=made_with,
            folder=folder,
            dtype=torch.float16,
        )

    ship({})
    shipped = checkpoints.load("sound_decoder", folder)  # measured is what is shipped
    if wanted:
        result = study(shipped)
        ship(
            {
                name: {system: found["rows"][system] for system in ("plain", "regression", result["chosen"])}
                for name, found in result["sets"].items()
            }
            | {"chosen": result["chosen"]}
        )
    return shipped


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
