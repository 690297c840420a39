"""Sampling against regression at equal *long* training, on more than a thousand scenes (H4; H1 to H3 with intervals).

The flow, the same network as regression, and a wider regression that costs what two steps of the flow cost: each
trained three times, as long as the shipped decoder. About 150 CPU minutes with one thread, or five minutes of a
large GPU, which is used if there is one; a row says where it was measured. Trainings are cached, and may be run side
by side before the study is:

    python -c "from mmcourse.studies.ch07_long import *; pool_part(PLAN, 0)"            # part 0 to 15
    python -c "from mmcourse.studies.ch07_long import *; trained(PLAN, 'flow', 0)"      # each arm and seed
"""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.diffusion import FlowDecoder, euler, plain_and_codes, velocity_of
from mmcourse.files import atomic_write
from mmcourse.judges.metrics import (
    edge_sharpness,
    frechet_distance,
    grain,
    held_out_scenes,
    squared_errors,
    t_interval,
)
from mmcourse.judges.picture_net import halves
from mmcourse.judges.pictures import PictureReader
from mmcourse.optim import Optim
from mmcourse.paths import cache_dir
from mmcourse.recipes.decoder import BATCH, EMA_DECAY, JITTER, LR, MUON_LR, STEPS
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch07 import regress
from mmcourse.studies.ch07_sampling import LOSSES, WIDTHS
from mmcourse.training import History, Run, train
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene

MEASURED = ("vqvae", "decoder", "picture_judge")        # the checkpoints
SETS = {"on the grid": 0, "moved": JITTER}              # pixels by which the drawings are moved
# What is compared: the first minus the second. The bootstrap draws the same scenes for both.
CONTRASTS = (("shipped, 8 steps", "plain"), ("flow, 8 steps", "plain"), ("flow, 2 steps", "wide regression"),
             ("flow, 2 steps", "regression"), ("flow, 1 step", "regression"), ("flow, 2 steps", "flow, 1 step"),
             ("flow, 8 steps", "regression"), ("regression", "plain"), ("wide regression", "regression"))
NORMAL = 1.96                                           # standard deviations on either side: 95 %


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    train_steps: int = STEPS            # of each training: those of the shipped decoder
    batch: int = BATCH
    part: int = 1600                    # training scenes that are drawn at a time
    parts: int = 16
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[str, ...] = tuple(WIDTHS)
    steps: tuple[int, ...] = (1, 2, 4, 8)       # Euler steps of the flows
    n: int = 1500                       # held-out scenes of each set
    scene_seed: int = 41                # of scenes that no other study looked at
    draws: int = 200                    # of the bootstrap over scenes


PLAN = Plan()


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> str:
    """Where the numbers come from, in words."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


# ---------------------------------------------------------------- training

def pool_part(plan: Plan, i: int) -> tuple[np.ndarray, np.ndarray]:
    """One part of the training scenes, half of them moved: pictures uint8, and their tokens; drawn once."""
    file = cache_dir() / f"ch07-long-{plan.part}-{i}-{checkpoints.identity('vqvae')[:8]}.npz"
    if not file.exists():
        rng, vqvae = np.random.default_rng((77, i)), checkpoints.load("vqvae")
        pictures, ids = [], []
        for start in range(0, plan.part, 100):
            number = min(100, plan.part - start)
            drawn = draw_batch([sample_scene(rng, jitter=JITTER * int(rng.integers(2))) for _ in range(number)])
            pictures.append((drawn * 255).round().to(torch.uint8).numpy())
            ids.append(vqvae.encode(drawn).numpy())
        with atomic_write(file) as draft, open(draft, "wb") as out:
            np.savez(out, pictures=np.concatenate(pictures), ids=np.concatenate(ids))
    with np.load(file) as saved:
        return saved["pictures"], saved["ids"]


@cache
def batch_of(plan: Plan):
    """`batch(rng)` for `train`: every arm sees the same pictures."""
    vqvae = checkpoints.load("vqvae").to(device())
    parts = [pool_part(plan, i) for i in range(plan.parts)]
    pictures, ids = (torch.from_numpy(np.concatenate(kind)).to(device()) for kind in zip(*parts, strict=True))

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = torch.from_numpy(rng.integers(len(ids), size=plan.batch)).to(device())
        return pictures[rows].float() / 255, *plain_and_codes(vqvae, ids[rows])
    return batch


@cache
def trained(plan: Plan, arm: str, seed: int) -> tuple[FlowDecoder, History]:
    """One training, by the recipe of the shipped decoder; a finished one comes from its file."""
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(seed)
    model = FlowDecoder(width=WIDTHS[arm]).to(device())
    name = (f"ch07-long-{arm.replace(' ', '-')}-{seed}-{plan.train_steps}-{plan.part * plan.parts}-"
            f"{checkpoints.identity('vqvae')[:8]}.pt")
    history = train(model, batch_of(plan), LOSSES[arm], steps=plan.train_steps,
                    optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=100, ema_decay=EMA_DECAY),
                    run=Run(seed=seed, resume=cache_dir() / "runs" / name, save_every=600, log_every=25))
    return model, finished(history)


# ---------------------------------------------------------------- measuring

@torch.no_grad()
def flow_pictures(model: FlowDecoder, plain: torch.Tensor, codes: torch.Tensor, steps: int, seed: int) -> torch.Tensor:
    """A draw for each plain picture, its noise from the CPU's generator as in `paint_flow`."""
    noise = torch.randn(plain.shape, generator=torch.Generator().manual_seed(seed)).to(plain)
    end = euler(velocity_of(model, plain, codes), noise, steps)[-1]
    return (plain + model.residual_std * end).clamp(0, 1)


class Scenes:
    """Held-out scenes of one world, their tokens, and everything that painted pictures are held against."""

    def __init__(self, plan: Plan, world: str):
        self.plan, self.jitter = plan, SETS[world]
        self.scenes = held_out_scenes(plan.n, plan.scene_seed, self.jitter)
        self.truth = torch.cat([draw_batch(self.scenes[i:i + 100]) for i in range(0, plan.n, 100)]).to(device())
        self.net, self.reader = checkpoints.load("picture_judge").to(device()), PictureReader()
        vqvae = checkpoints.load("vqvae").to(device())
        self.told = [plain_and_codes(vqvae, vqvae.encode(part)) for part in self.truth.split(100)]
        self.features = self.net.features(self.truth).cpu()
        self.resampled = np.random.default_rng(0).integers(plan.n, size=(plan.draws, plan.n))

    def paint(self, way) -> torch.Tensor:
        """`way(plain, codes, number of the part)` of all parts."""
        with torch.no_grad():
            return torch.cat([way(*told, i).clamp(0, 1) for i, told in enumerate(self.told)])

    def read(self, pictures: torch.Tensor) -> dict:
        """What is measured of one decoder: `values`, and for each scene or resample what an interval needs."""
        seen, features = self.features, self.net.features(pictures).cpu()
        rows = map(torch.from_numpy, self.resampled)
        said = self.net.read(pictures)
        out = {"fd": distance_of(seen, features),
               "fd_draws": np.array([distance_of(seen[i], features[i]) for i in rows]),
               "errors": squared_errors(pictures, self.truth).cpu().double().numpy(),
               "nouns": np.array([s[:2] == halves(scene)[:2] for s, scene in zip(said, self.scenes)], float),
               "edges": edge_sharpness(pictures, self.truth), "grain": grain(pictures, self.truth)}
        if not self.jitter:                             # what the reader of whole scenes needs
            read = self.reader.read(pictures.cpu())
            out["exact"] = np.array([one == scene for one, scene in zip(read, self.scenes)], float)
        return out


def distance_of(a: torch.Tensor, b: torch.Tensor) -> float:
    """`frechet_distance`; 0 for sets too small for one, as in a toy."""
    return frechet_distance(a, b) if len(a) > a.shape[1] else 0.0


def ways(plan: Plan) -> dict[str, list]:
    """{decoder: [paint, one for each training]}, `paint(plain, codes, i)`."""
    def sampler(model, steps):
        return lambda plain, codes, i: flow_pictures(model, plain, codes, steps, i)

    def name(kind, steps):
        return f"{kind}, {steps} step{'s' * (steps > 1)}"
    shipped = checkpoints.load("decoder").to(device())
    out = {"plain": [lambda plain, codes, i: plain]}
    out |= {name("shipped", s): [sampler(shipped, s)] for s in plan.steps}
    for arm in plan.arms:
        models = [trained(plan, arm, seed)[0] for seed in plan.seeds]
        if arm == "flow":
            out |= {name(arm, s): [sampler(model, s) for model in models] for s in plan.steps}
        else:
            out[arm] = [lambda plain, codes, i, model=model: regress(model, plain, codes) for model in models]
    return out


def psnr(errors: np.ndarray) -> np.ndarray:
    """Pooled over the last axis, in dB."""
    return -10 * np.log10(errors.mean(-1))


def quantities(scenes: Scenes, read: dict) -> dict[str, tuple[float, np.ndarray]]:
    """{measure: (its value, its values on the resampled scenes)} of one decoder."""
    out = {"fd": (read["fd"], read["fd_draws"]),
           "psnr": (float(psnr(read["errors"])), psnr(read["errors"][scenes.resampled]))}
    for key in ("nouns", "exact"):
        if key in read:
            out[key] = float(read[key].mean()), read[key][scenes.resampled].mean(1)
    return out


def spread(values: Sequence[float], draws: np.ndarray) -> list[float]:
    """[mean over trainings, half its 95 % interval], from trainings and scenes together.

    Args:
        values: one for each training. draws: (trainings, resamples), on the same scenes for all.
    """
    scenes = NORMAL * float(draws.mean(0).std(ddof=1))
    trainings = t_interval(values)[1] if len(values) > 1 else 0.0
    return [round(float(np.mean(values)), 5), round(float(np.hypot(scenes, trainings)), 5)]


def measure(plan: Plan, world: str) -> dict:
    """Every decoder on one world's scenes, and what differs between some of them."""
    scenes, rows, found = Scenes(plan, world), {}, {}
    for decoder, paints in ways(plan).items():
        read = [scenes.read(scenes.paint(paint)) for paint in paints]
        found[decoder] = [quantities(scenes, one) for one in read]
        rows[decoder] = {"trainings": len(read), **{
            key: spread([q[key][0] for q in found[decoder]], np.stack([q[key][1] for q in found[decoder]]))
            for key in found[decoder][0]}}
        rows[decoder] |= {key: round(float(np.mean([one[key] for one in read])), 5) for key in ("edges", "grain")}
    contrasts = {f"{a} - {b}": contrast(found[a], found[b]) for a, b in CONTRASTS if a in found and b in found}
    return {"machine": machine(), "n": plan.n, "rows": rows, "contrasts": contrasts}


def contrast(first: list[dict], second: list[dict]) -> dict:
    """What two decoders differ by, training by training; `ratio`: of the FDs, in place of their difference."""
    pairs = list(zip(first, second)) if len(first) == len(second) else [(a, b) for a in first for b in second]
    out = {key: spread([a[key][0] - b[key][0] for a, b in pairs],
                       np.stack([a[key][1] - b[key][1] for a, b in pairs])) for key in first[0]}
    if all(b["fd"][0] for b in second):
        ratios = [a["fd"][0] / b["fd"][0] for a, b in pairs]
        out["ratio"] = spread(ratios, np.stack([a["fd"][1] / b["fd"][1] for a, b in pairs]))
    return out


def minutes(plan: Plan) -> dict:
    """Minutes of a processor that each training took; a GPU's own are not counted."""
    return {f"{arm}, seed {seed}": round(trained(plan, arm, seed)[1].cpu_minutes, 2)
            for arm in plan.arms for seed in plan.seeds}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """The trainings, then a job for each world."""
    return [Job("minutes", partial(minutes, plan), section=()),
            *(Job(world, partial(measure, plan, world), section=("sets",)) for world in SETS)]


def head(plan: Plan) -> dict:
    """The plan, and which checkpoints were measured."""
    names = ("train_steps", "batch", "part", "parts", "seeds", "arms", "steps", "n", "scene_seed", "draws")
    return {"plan": {name: getattr(plan, name) for name in names},
            "made_with": {name: checkpoints.identity(name) for name in MEASURED}}


TOY = Plan(train_steps=1, batch=2, part=8, parts=2, steps=(1, 2), n=6, draws=4)
STUDY = Study("ch07_long", PLAN, TOY, jobs, head)
main = STUDY.run
