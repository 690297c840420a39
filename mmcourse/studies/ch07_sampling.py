"""What does a diffusion decoder's *sampling* buy, and what its *capacity*? `python -m mmcourse.studies.ch07_sampling`.

At equal tokens: the plain VQ decoder; the U-Net of chapter 07 trained as a flow, over numbers of steps; the same network
trained as plain regression (one call); and, on demand (`--arms`), a wider regression that costs what two steps of the flow
cost. Three training seeds each at a short budget; and the shipped flow decoder, trained on as regression and as its own
one-step student. FLOPs are counted. About 8 CPU minutes the first time; runs and tokens are cached, and what has not changed
is taken from `data/results/ch07_sampling.json`: after a new transformer only the part on its tokens is measured again.
"""
import argparse
import copy
import json
import time

import numpy as np
import torch
from torch import nn

from mmcourse import checkpoints
from mmcourse.diffusion import FlowDecoder, euler, flow_loss, plain_and_codes, velocity_of
from mmcourse.optim import Optim
from mmcourse.paths import RESULTS, cache_dir
from mmcourse.recipes.decoder import JITTER, LR, MUON_LR, held_out_scenes, sharpness
from mmcourse.training import Run, train
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import caption, sample_scene

STEPS, BATCH, SEEDS, POOL, WIDE = 150, 32, (0, 1, 2), 3200, 94      # one call at width 94 costs what two at 64 cost
LONG_STEPS, TEACHER = 100, 4
ARMS = {"flow": 64, "regression": 64, "wide regression": WIDE}
FILE = RESULTS / "ch07_sampling.json"


def regression_loss(model: nn.Module, data: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
    """The same network without any noise: squared error of one call, from zeros, at t = 0."""
    return (model(torch.zeros_like(data), torch.zeros(len(data)), *condition) - data).square().mean()


def distil_loss(teacher: FlowDecoder, steps: int = TEACHER):
    """`loss(student, images, plain, codes)`: one call shall land where `steps` Euler steps of the teacher land.

    Teacher and student begin at the same noise, so that each draw has one right answer, not a mean of many. (Luhman and
    Luhman 2021, "Knowledge distillation in iterative generative models".)
    """
    def loss(student: FlowDecoder, images: torch.Tensor, plain: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        noise = torch.randn_like(plain)
        with torch.no_grad():
            end = euler(velocity_of(teacher, plain, codes), noise, steps)[-1]
        return (student(noise, torch.zeros(len(noise)), plain, codes) - end).square().mean()
    return loss


def data_of(model: FlowDecoder, images: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    """What the plain decoder got wrong, in units of the model's `error`."""
    return (images - plain) / model.residual_std


LOSSES = {"flow": lambda model, images, plain, codes: flow_loss(model, data_of(model, images, plain), plain, codes)}
LOSSES["regression"] = LOSSES["wide regression"] = \
    lambda model, images, plain, codes: regression_loss(model, data_of(model, images, plain), plain, codes)


def make_batch(vqvae: VQVAE, pool: int = POOL):
    """`batch(rng)` for `train`, from scenes drawn once, half of them jittered: every arm sees the same pictures."""
    rng = np.random.default_rng(77)
    scenes = [sample_scene(rng, jitter=JITTER * int(rng.integers(2))) for _ in range(pool)]
    parts = [draw_batch(scenes[i:i + 100]) for i in range(0, pool, 100)]
    pictures, tokens = torch.cat([(p * 255).round().to(torch.uint8) for p in parts]), torch.cat([vqvae.encode(p) for p in parts])

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = torch.from_numpy(rng.integers(pool, size=BATCH))
        return pictures[rows].float() / 255, *plain_and_codes(vqvae, tokens[rows])
    return batch


def trained(arm: str, seed: int, batch, steps: int, made_with: str) -> FlowDecoder:
    """One run of the study; a finished one comes from its file."""
    torch.manual_seed(seed)
    model = FlowDecoder(width=ARMS[arm])
    name = f"decoder-study-{arm.replace(' ', '-')}-{seed}-{steps}-{made_with[:8]}.pt"
    train(model, batch, LOSSES[arm], steps=steps,
          optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=50, ema_decay=0.98),
          run=Run(seed=seed, resume=cache_dir() / "runs" / name, save_every=100, log_every=25))
    return model


def continued(kind: str, batch, made_with: str, steps: int = LONG_STEPS) -> FlowDecoder:
    """The shipped decoder trained on: as its own one-step `student`, or as plain `regression`, which gives that control
    all the training that the flow had."""
    shipped = checkpoints.load("decoder")
    model = copy.deepcopy(shipped)
    loss = distil_loss(shipped) if kind == "student" else LOSSES["regression"]
    train(model, batch, loss, steps=steps,
          optim=Optim("muon", lr=LR / 3, muon_lr=MUON_LR / 4, warmup=20, ema_decay=0.95),
          run=Run(resume=cache_dir() / "runs" / f"decoder-study-{kind}-{steps}-{made_with[:8]}.pt", save_every=50))
    return model


def flops_of(job) -> int:
    """Multiplications and additions of one call of `job`."""
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        job()
    return counter.get_total_flops()


def count_flops(vqvae: VQVAE) -> dict:
    """Per picture: the plain decoder, and one call of each arm's network."""
    ids = torch.zeros(1, 8, 8, dtype=torch.long)
    plain, codes = plain_and_codes(vqvae, ids)
    out = {"plain": flops_of(lambda: vqvae.decode(ids))}
    for arm, width in ARMS.items():
        model = FlowDecoder(width=width).eval()
        out[arm] = flops_of(lambda model=model: model(torch.zeros(1, 3, 64, 64), torch.zeros(1), plain, codes))
    return out


@torch.no_grad()
def paint_regression(model: FlowDecoder, ids: torch.Tensor, vqvae: VQVAE) -> torch.Tensor:
    """Image tokens (B, 8, 8) -> pictures (B, 3, 64, 64) by one call from zeros."""
    plain, codes = plain_and_codes(vqvae, ids)
    return (plain + model.residual_std * model(torch.zeros_like(plain), torch.zeros(len(ids)), plain, codes)).clamp(0, 1)


class Ruler:
    """Tokens of some held-out scenes and everything that pictures painted from them are held against."""

    def __init__(self, scenes: list, ids: torch.Tensor, vqvae: VQVAE):
        self.scenes, self.ids, self.vqvae = scenes, ids, vqvae
        self.net, self.truth = checkpoints.load("picture_judge"), draw_batch(scenes)
        self.features = self.net.features(self.truth)
        self.signed = [i for i, s in enumerate(scenes) if s.sign][:60]

    @torch.no_grad()
    def read(self, pictures: torch.Tensor) -> dict:
        """`fd`: to the true pictures of the same scenes; `nouns`, `signs`: shares that PictureNet and OCR read rightly."""
        from mmcourse.judges import read_sign
        from mmcourse.judges.picture_net import frechet_distance, noun_accuracy
        out = {"fd": frechet_distance(self.features, self.net.features(pictures)),
               "psnr": -10 * (pictures - self.truth).square().mean((1, 2, 3)).mean().log10().item(),
               "nouns": noun_accuracy(self.net, pictures, self.scenes), "sharpness": sharpness(pictures) / sharpness(self.truth)}
        try:
            out["signs"] = float(np.mean([read_sign(pictures[i]) == self.scenes[i].sign for i in self.signed]))
        except ImportError:                                            # rapidocr comes with the test extra
            out["signs"] = None
        return {k: round(v, 4) if v is not None else None for k, v in out.items()}

    def flow(self, model: FlowDecoder, steps: int) -> dict:
        start = time.process_time()
        pictures = torch.cat([model.decode(part, self.vqvae, steps, i) for i, part in enumerate(self.ids.split(64))])
        return {"ms": round(1000 * (time.process_time() - start) / len(self.ids), 2), **self.read(pictures)}

    def regression(self, model: FlowDecoder) -> dict:
        start = time.process_time()
        pictures = torch.cat([paint_regression(model, part, self.vqvae) for part in self.ids.split(64)])
        return {"ms": round(1000 * (time.process_time() - start) / len(self.ids), 2), **self.read(pictures)}


def generated_tokens(scenes: list, made_with: str) -> torch.Tensor:
    """What the shipped transformer draws for the scenes' captions, one try each (n, 8, 8); cached by its checkpoint."""
    from mmcourse.assistant import load
    file = cache_dir() / f"decoder-study-tokens-{made_with[:8]}-{len(scenes)}.npy"
    if not file.exists():
        assistant = load()
        ids = [assistant.tokens(caption(s), "image", i, best_of=1).ids for i, s in enumerate(scenes)]
        np.save(file, np.array(ids, dtype=np.int64).reshape(-1, 8, 8))
    return torch.from_numpy(np.load(file))


def rows_on(name: str, ruler: Ruler, models: dict, longer: dict, flow_steps: tuple[int, ...]) -> list[dict]:
    """The table of one set of tokens: a row for each decoder, training seed and number of steps."""
    rows = [{"set": name, "decoder": "plain", "seed": None, "steps": 0, **ruler.read(ruler.vqvae.decode(ruler.ids))}]
    for (arm, seed), model in models.items():
        if arm == "flow":
            rows += [{"set": name, "decoder": arm, "seed": seed, "steps": n, **ruler.flow(model, n)} for n in flow_steps]
        else:
            rows.append({"set": name, "decoder": arm, "seed": seed, "steps": 1, **ruler.regression(model)})
    shipped = checkpoints.load("decoder")
    rows += [{"set": name, "decoder": "shipped", "seed": None, "steps": n, **ruler.flow(shipped, n)} for n in flow_steps]
    for kind, row in (("student", ruler.flow(longer["student"], 1)), ("regression", ruler.regression(longer["regression"]))):
        rows.append({"set": name, "decoder": f"shipped, then {kind}", "seed": None, "steps": 1, **row})
    return rows


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval over training seeds (Student's t; 0 for one value)."""
    quantile = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(len(values), 2.0)
    spread = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return float(np.mean(values)), quantile * spread


def summary(rows: list[dict], keys=("fd", "psnr", "nouns", "signs", "sharpness")) -> list[dict]:
    """A row for each set, decoder and number of steps: (mean, half-width) over the training seeds of each measure."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["decoder"], row["steps"]), []).append(row)
    return [{"set": s, "decoder": d, "steps": n, "seeds": len(group),
             **{k: interval([r[k] for r in group]) for k in keys if all(r[k] is not None for r in group)}}
            for (s, d, n), group in groups.items()]


def main(argv: list[str] | None = None) -> dict:
    """Train what is not trained yet, measure what has changed, write `data/results/ch07_sampling.json`."""
    parser = argparse.ArgumentParser(prog="python -m mmcourse.studies.ch07_sampling")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("-n", type=int, default=128, help="held-out scenes of each set")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["flow", "regression"])
    parser.add_argument("--train-only", action="store_true", help="leave the measuring to a later call")
    args = parser.parse_args(argv if argv is not None else [])
    hashes = {name: checkpoints.manifest()[name]["sha256"] for name in ("vqvae", "decoder", "transformer", "picture_judge")}
    old = json.loads(FILE.read_text()) if FILE.exists() else {}
    vqvae = checkpoints.load("vqvae")
    budget = {"steps": args.steps, "batch": BATCH, "pool": POOL, "seeds": list(args.seeds), "arms": args.arms,
              "long_steps": LONG_STEPS, "teacher_steps": TEACHER, "n": args.n}
    batch = make_batch(vqvae)
    models = {(arm, seed): trained(arm, seed, batch, args.steps, hashes["vqvae"]) for arm in args.arms for seed in args.seeds}
    longer = {kind: continued(kind, batch, hashes["decoder"]) for kind in ("student", "regression")}
    if args.train_only:
        return {}
    rows, same = [], old.get("budget") == budget
    for name, jitter in (("on the grid", 0), ("moved", JITTER), ("generated", None)):
        needs = ["vqvae", "decoder", "picture_judge"] + ["transformer"] * (jitter is None)
        if same and all(old["made_with"][k] == hashes[k] for k in needs):
            rows += [row for row in old["rows"] if row["set"] == name]
            continue
        hashes["transformer"] = checkpoints.manifest()["transformer"]["sha256"]        # it may have been shipped meanwhile
        scenes = held_out_scenes(args.n, 0, jitter or 0)
        ids = generated_tokens(scenes, hashes["transformer"]) if jitter is None else vqvae.encode(draw_batch(scenes))
        rows += rows_on(name, Ruler(scenes, ids, vqvae), models, longer, (1, 2) if jitter is None else (1, 2, 4, 8))
    weights = {arm: sum(p.numel() for p in FlowDecoder(width=width).parameters()) for arm, width in ARMS.items()}
    results = {"budget": budget, "made_with": hashes, "flops": count_flops(vqvae), "weights": weights, "rows": rows}
    RESULTS.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for row in summary(rows):
        print(" | ".join(str(row[k]) for k in ("set", "decoder", "steps")),
              *(f"{k} {row[k][0]:.4f} ± {row[k][1]:.4f}" for k in ("fd", "psnr", "nouns", "signs", "sharpness") if k in row))
    return results


if __name__ == "__main__":
    import sys
    main(sys.argv[1:])
