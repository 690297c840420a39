"""What would moved pictures need? `python -m mmcourse.studies.ch03_moved`, some 130 CPU minutes for all rows.

`ch03_limits` replaces parts of the finished tokenizer; here tokenizers grow up from nothing on pictures whose drawings are all
moved: with 512 codes and with 8,192, with tokens that see their own patch and tokens that see their neighbours, and with no codes
at all, the ceiling of this encoder and decoder. Nothing is shipped. Adds to `data/results/ch03_moved.json`; a row that is there is
not run again.
"""
import argparse
import json
import time

import numpy as np
import torch

from mmcourse.optim import Optim
from mmcourse.paths import RESULTS, cache_dir
from mmcourse.recipes.vqvae import BATCH, LR, MUON_LR, loss
from mmcourse.studies.ch03_limits import JITTER, row, signed
from mmcourse.studies.ch03_sweep import save
from mmcourse.training import Run, train
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene

STEPS, PICTURES = 2200, 192
FILE = RESULTS / "ch03_moved.json"


class NoCodes(torch.nn.Module):
    """In the place of a quantizer: the encoder's vectors pass as they are."""

    codes = 1

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return x, torch.zeros(len(x), dtype=torch.long), x.new_zeros(())


def make(codes: int | None, context: int, seed: int = 0) -> VQVAE:
    """A fresh tokenizer of the shipped shape but for its codes (None: none) and what a token sees."""
    torch.manual_seed(seed)
    model = VQVAE(codebook_size=codes or 1, dim=16, width=128, context=context)
    if codes is None:
        model.quantizer = NoCodes()
    return model


# A name -> codes, context, and how many times `STEPS` it is trained.
ARMS = {f"{codes or 'no'} codes, context {context}": (codes, context, 1) for context in (3, 1) for codes in (8192, None, 512)}
ARMS["8192 codes, context 3, twice as long"] = (8192, 3, 2)
ARMS |= {f"{codes or 'no'} codes, context 1, four times as long": (codes, 1, 4) for codes in (8192, None, 512)}


def batch(rng: np.random.Generator) -> tuple[torch.Tensor]:
    """Training scenes, all moved."""
    return (draw_batch([sample_scene(rng, jitter=JITTER) for _ in range(BATCH)]),)


@torch.no_grad()
def measure(model: VQVAE, pictures: int = PICTURES) -> dict:
    """`ch03_limits.row` on held-out scenes with signs, moved; and the codes used."""
    scenes, truth = signed(pictures, JITTER, seed=1)
    painted, ids = [], []
    for images in truth.split(32):
        out, indices, _ = model(images)
        painted.append(out.clamp(0, 1))
        ids.append(indices.flatten())
    return row(torch.cat(painted), truth, scenes, codes_used=len(torch.cat(ids).unique()))


def main(argv: list[str] | None = None, file=FILE) -> dict:
    """Train and measure every arm that the file does not hold."""
    parser = argparse.ArgumentParser(prog="python -m mmcourse.studies.ch03_moved", description=__doc__.split("\n")[0])
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    plan = {"steps": args.steps, "batch": BATCH, "jitter": JITTER, "pictures": PICTURES, "seed": args.seed}
    result = {"plan": plan, "rows": {}}
    if file.exists() and (old := json.loads(file.read_text(encoding="utf-8")))["plan"] == plan:
        result = old
    for name in args.arms:
        if name in result["rows"]:
            continue
        codes, context, times = ARMS[name]
        model = make(codes, context, args.seed)
        run = cache_dir() / "runs" / f"vq-moved-{name.replace(' ', '-').replace(',', '')}-{args.steps}-{args.seed}.pt"
        start = time.process_time()
        history = train(model, batch, loss, steps=times * args.steps,
                        optim=Optim("muon", lr=LR, muon_lr=MUON_LR),
                        run=Run(seed=args.seed, resume=run, log_every=50))
        if history.interrupted:
            return result
        result["rows"][name] = {**measure(model), "cpu_minutes": round(history.cpu_minutes, 1)}
        print(name, result["rows"][name], f"{time.process_time() - start:.0f} CPU s", flush=True)
        save(result, file)
    return result


if __name__ == "__main__":
    main()
