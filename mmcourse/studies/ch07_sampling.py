"""What does a diffusion decoder's sampling buy, and what its capacity? About 8 CPU minutes.

At equal tokens: the plain VQ decoder; the U-Net of chapter 07 trained as a flow, over numbers of steps; the
same network trained as plain regression (one call); and a wider regression that costs what two steps of the
flow cost. Three training seeds each at a short budget; and the shipped flow decoder, trained on as regression
and as its own one-step student. Runs and tokens are cached: after a new transformer only the part on its
tokens is measured again.
"""
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.diffusion import FlowDecoder, decoder_loss, euler, plain_and_codes, velocity_of
from mmcourse.judges.metrics import (
    count_flops,
    held_out_scenes,
    pooled_psnr,
    rounded,
    sharpness,
    sign_accuracy,
    t_interval,
)
from mmcourse.optim import Optim
from mmcourse.paths import cache_dir
from mmcourse.recipes.decoder import JITTER, LR, MUON_LR
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch07 import distance, regress, regression_loss, written_tokens
from mmcourse.training import Run, train
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene

# One call at width 94 costs what two at 64 cost.
WIDTHS = {"flow": 64, "regression": 64, "wide regression": 94}
LOSSES = {"flow": decoder_loss, "regression": regression_loss, "wide regression": regression_loss}
SIGNS_READ = 60                         # at most, in each set
MEASURES = ("fd", "psnr", "nouns", "signs", "sharpness")
# What the rows of a set rest on: the checkpoints
RESTS_ON = {"on the grid": {"vqvae", "decoder", "picture_judge"}, "moved": {"vqvae", "decoder", "picture_judge"},
            "generated": {"vqvae", "decoder", "picture_judge", "transformer"}}


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 150                    # of each training
    batch: int = 32
    pool: int = 3200                    # training scenes, drawn once
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[str, ...] = tuple(WIDTHS)
    long_steps: int = 100               # for which the shipped decoder is trained on
    teacher_steps: int = 4              # Euler steps that the student learns to do in one
    n: int = 128                        # held-out scenes of each set


def distil_loss(teacher: FlowDecoder, steps: int):
    """`loss(student, images, plain, codes)`: one call shall land where `steps` Euler steps of the teacher
    land.

    Teacher and student begin at the same noise, so that each draw has one right answer, not a mean of many.
    (Luhman and Luhman 2021, "Knowledge distillation in iterative generative models".)
    """
    def loss(student: FlowDecoder, images: torch.Tensor, plain: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        noise = torch.randn_like(plain)
        with torch.no_grad():
            end = euler(velocity_of(teacher, plain, codes), noise, steps)[-1]
        return (student(noise, torch.zeros(len(noise)), plain, codes) - end).square().mean()
    return loss


@cache
def batch_of(plan: Plan) -> Callable:
    """`batch(rng)` for `train`, from scenes drawn once, half of them jittered: every arm sees the same
    pictures."""
    rng, vqvae = np.random.default_rng(77), checkpoints.load("vqvae")
    scenes = [sample_scene(rng, jitter=JITTER * int(rng.integers(2))) for _ in range(plan.pool)]
    parts = [draw_batch(scenes[i:i + 100]) for i in range(0, plan.pool, 100)]
    pictures = torch.cat([(part * 255).round().to(torch.uint8) for part in parts])
    tokens = torch.cat([vqvae.encode(part) for part in parts])

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = torch.from_numpy(rng.integers(plan.pool, size=plan.batch))
        return pictures[rows].float() / 255, *plain_and_codes(vqvae, tokens[rows])
    return batch


@cache
def trained(plan: Plan, arm: str, seed: int) -> FlowDecoder:
    """One training of the study; a finished one comes from its file."""
    torch.manual_seed(seed)
    model = FlowDecoder(width=WIDTHS[arm])
    name = f"decoder-study-{arm.replace(' ', '-')}-{seed}-{plan.steps}-{checkpoints.identity('vqvae')[:8]}.pt"
    finished(train(model, batch_of(plan), LOSSES[arm], steps=plan.steps,
                   optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=50, ema_decay=0.98),
                   run=Run(seed=seed, resume=cache_dir() / "runs" / name, save_every=100, log_every=25)))
    return model


@cache
def continued(plan: Plan, kind: str) -> FlowDecoder:
    """The shipped decoder trained on: as its own one-step `student`, or as plain `regression`, which gives
    that control all the training that the flow had."""
    shipped = checkpoints.load("decoder")
    model = copy.deepcopy(shipped)
    loss = distil_loss(shipped, plan.teacher_steps) if kind == "student" else regression_loss
    name = f"decoder-study-{kind}-{plan.long_steps}-{checkpoints.identity('decoder')[:8]}.pt"
    finished(train(model, batch_of(plan), loss, steps=plan.long_steps,
                   optim=Optim("muon", lr=LR / 3, muon_lr=MUON_LR / 4, warmup=20, ema_decay=0.95),
                   run=Run(resume=cache_dir() / "runs" / name, save_every=50)))
    return model


@torch.no_grad()
def paint_regression(model: FlowDecoder, ids: torch.Tensor, vqvae: VQVAE) -> torch.Tensor:
    """Image tokens (B, 8, 8) -> pictures (B, 3, 64, 64) by one call from zeros."""
    return regress(model, *plain_and_codes(vqvae, ids)).clamp(0, 1)


class PictureMetrics:
    """Tokens of some held-out scenes, and everything that pictures painted from them are held against."""

    def __init__(self, scenes: list, ids: torch.Tensor, vqvae: VQVAE):
        self.scenes, self.ids, self.vqvae = scenes, ids, vqvae
        self.net, self.truth = checkpoints.load("picture_judge"), draw_batch(scenes)
        self.features = self.net.features(self.truth)
        self.signed = [i for i, s in enumerate(scenes) if s.sign][:SIGNS_READ]

    @torch.no_grad()
    def read(self, pictures: torch.Tensor) -> dict:
        """`fd`: to the true pictures of the same scenes; `nouns`, `signs`: shares that PictureNet and OCR
        read rightly."""
        return rounded({"fd": distance(self.features, self.net.features(pictures)),
                        "psnr": pooled_psnr(pictures, self.truth),
                        "nouns": self.net.accuracy(pictures, self.scenes),
                        "sharpness": sharpness(pictures) / sharpness(self.truth),
                        "signs": sign_accuracy(pictures[self.signed], [self.scenes[i] for i in self.signed])})

    def _timed(self, paint: Callable) -> dict:
        """`read`, and the CPU milliseconds a picture of `paint(ids, number of the part)`."""
        start = time.process_time()
        pictures = torch.cat([paint(part, i) for i, part in enumerate(self.ids.split(64))])
        return {"ms": round(1000 * (time.process_time() - start) / len(self.ids), 2), **self.read(pictures)}

    def plain(self) -> dict:
        """The plain decoder."""
        return self.read(self.vqvae.decode(self.ids))

    def flow(self, model: FlowDecoder, steps: int) -> dict:
        """A flow decoder after so many Euler steps."""
        return self._timed(lambda part, i: model.decode(part, self.vqvae, steps, i))

    def regression(self, model: FlowDecoder) -> dict:
        """A network that was trained as plain regression."""
        return self._timed(lambda part, i: paint_regression(model, part, self.vqvae))


@cache
def metrics_of(plan: Plan, name: str) -> PictureMetrics:
    """One set of tokens: of true pictures in place or moved, or written by the transformer."""
    vqvae, scenes = checkpoints.load("vqvae"), held_out_scenes(plan.n, 0, JITTER if name == "moved" else 0)
    ids = written_tokens(plan.n) if name == "generated" else vqvae.encode(draw_batch(scenes))
    return PictureMetrics(scenes, ids, vqvae)


def measurement(plan: Plan, name: str, decoder: str, seed: int | None, steps: int) -> dict:
    """What one decoder makes of one set of tokens."""
    metrics = metrics_of(plan, name)
    if decoder == "plain":
        found = metrics.plain()
    elif decoder == "shipped":
        found = metrics.flow(checkpoints.load("decoder"), steps)
    elif decoder == "shipped, then student":
        found = metrics.flow(continued(plan, "student"), 1)
    elif decoder == "shipped, then regression":
        found = metrics.regression(continued(plan, "regression"))
    elif decoder == "flow":
        found = metrics.flow(trained(plan, decoder, seed), steps)
    else:
        found = metrics.regression(trained(plan, decoder, seed))
    return {"set": name, "decoder": decoder, "seed": seed, "steps": steps, **found}


def table(plan: Plan) -> list[dict]:
    """The key of every row: the set of tokens, the decoder, its training seed (None: shipped) and the number
    of steps."""
    keys = []
    for name in RESTS_ON:
        flow_steps = (1, 2) if name == "generated" else (1, 2, 4, 8)
        trainings = [(arm, seed) for arm in plan.arms for seed in plan.seeds]
        rows = [("plain", None, 0),
                *((arm, seed, n) for arm, seed in trainings for n in (flow_steps if arm == "flow" else (1,))),
                *(("shipped", None, n) for n in flow_steps),
                ("shipped, then student", None, 1), ("shipped, then regression", None, 1)]
        keys += [{"set": name, "decoder": decoder, "seed": seed, "steps": steps} for decoder, seed, steps in rows]
    return keys


def flops() -> dict:
    """For each picture: the plain decoder, and one call of each arm's network."""
    vqvae, ids = checkpoints.load("vqvae"), torch.zeros(1, 8, 8, dtype=torch.long)
    plain, codes = plain_and_codes(vqvae, ids)
    out = {"plain": count_flops(lambda: vqvae.decode(ids))}
    for arm, width in WIDTHS.items():
        model = FlowDecoder(width=width).eval()
        out[arm] = count_flops(lambda model=model: model(torch.zeros_like(plain), torch.zeros(1), plain, codes))
    return out


def weights() -> dict:
    """How many each arm's network has."""
    return {arm: sum(p.numel() for p in FlowDecoder(width=width).parameters()) for arm, width in WIDTHS.items()}


def summary(rows: list[dict], keys: Sequence[str] = MEASURES) -> list[dict]:
    """A row for each set, decoder and number of steps: (mean, half-width of the 95 % interval) over the
    training seeds of each measure; a half-width of 0 where there was one training."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["decoder"], row["steps"]), []).append(row)

    def interval(values: list[float]) -> tuple[float, float]:
        return t_interval(values) if len(values) > 1 else (values[0], 0.0)
    return [{"set": s, "decoder": d, "steps": n, "seeds": len(group),
             **{k: interval([r[k] for r in group]) for k in keys if all(r[k] is not None for r in group)}}
            for (s, d, n), group in groups.items()]


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """What the networks cost, then every row of the table."""
    def name(key: dict) -> str:
        seed = "" if key["seed"] is None else f", seed {key['seed']}"
        return f"{key['set']}: {key['decoder']}{seed}, {key['steps']} steps"
    return [Job("flops", flops, section=()), Job("weights", weights, section=()),
            *(Job(name(key), partial(measurement, plan, *key.values()), key=key) for key in table(plan))]


def head(plan: Plan) -> dict:
    """The budget, and which checkpoints were measured."""
    names = ("steps", "batch", "pool", "seeds", "arms", "long_steps", "teacher_steps", "n")
    return {"budget": {name: getattr(plan, name) for name in names},
            "made_with": {name: checkpoints.identity(name) for name in sorted(set.union(*RESTS_ON.values()))}}


def outdated(result: dict, head: dict) -> None:
    """The rows of sets that rest on a checkpoint that has changed; under another budget nothing is kept."""
    if result.get("budget") != head["budget"]:
        return
    changed = {name for name, value in head["made_with"].items() if result["made_with"].get(name) != value}
    result["rows"] = [row for row in result.get("rows", []) if not changed & RESTS_ON[row["set"]]]
    result["made_with"] = head["made_with"]


TOY = Plan(steps=1, batch=2, pool=100, seeds=(0,), long_steps=1, teacher_steps=1, n=2)
STUDY = Study("ch07_sampling", Plan(), TOY, jobs, head, outdated=outdated)
main = STUDY.run
