"""What keeps moved pictures from 25 dB? `python -m mmcourse.studies.ch03_limits`, about one CPU minute.

The shipped tokenizer on pictures whose drawings are moved by up to two pixels, with one part at a time replaced by a better one:
the encoder's choice by a search among the codes (analysis by synthesis), the 512 codes by 8,192, the codes by no codes at all.
What still is missing then is not that part's fault. Nothing is trained or changed. Writes `data/results/ch03_limits.json`.
"""
import argparse
import time

import numpy as np
import torch

from mmcourse import checkpoints, judges
from mmcourse.judges import picture_net
from mmcourse.paths import RESULTS
from mmcourse.quantize import k_means, nearest_code
from mmcourse.studies.ch03_sweep import save
from mmcourse.vqvae import VQVAE, matte
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Scene, sample_scene

PICTURES, JITTER, NEAR, SWEEPS, APART, CODES, FITTED, FREE_STEPS = 64, 2, 8, 2, 4, 8192, 20000, 60
FILE = RESULTS / "ch03_limits.json"


def vectors(model: VQVAE, images: torch.Tensor) -> torch.Tensor:
    """What the encoder says before a code is chosen: (B, 3, H, W) -> (B, h, w, D)."""
    return model.encoder(matte(images) * 2 - 1).permute(0, 2, 3, 1)    # (B, D, h, w) -> (B, h, w, D)


def paint_vectors(model: VQVAE, z: torch.Tensor) -> torch.Tensor:
    """Any vectors, codes or not, as the decoder paints them: (B, h, w, D) -> (B, 3, 8h, 8w) in [0, 1]."""
    return (model.decoder(z.permute(0, 3, 1, 2)) + 0.5).clamp(0, 1)    # (B, h, w, D) -> (B, D, h, w) -> pixels


@torch.no_grad()
def search(model: VQVAE, images: torch.Tensor, ids: torch.Tensor, sweeps: int = 1, near: int = NEAR) -> torch.Tensor:
    """Better ids for (B, 3, 64, 64) than `ids` (B, 8, 8): each place tries the `near` codes nearest to its own, one after
    another, and keeps what the decoder paints with least squared error. No picture gets worse.

    Places four patches apart are tried together, each judged by the 32x32 pixels around it; a picture whose error as a whole
    does not fall takes its old ids back.
    """
    book, ids = model.quantizer.codebook, ids.clone()
    nearest = torch.cdist(book, book).argsort(1)[:, :near]             # (K, near): the first is the code itself
    rows, columns = ids.shape[1:]
    if rows % APART or columns % APART:
        raise ValueError(f"the search takes grids of multiples of {APART} tokens, got {rows}x{columns}")

    def squares(tokens):                                               # (B, h, w) -> the error of each patch (B, h, w)
        wrong = (model.decode(tokens) - images).square().sum(1)
        return wrong.reshape(len(tokens), rows, 8, columns, 8).sum((2, 4))

    best = squares(ids)
    for _ in range(sweeps):
        for top in range(APART):
            for left in range(APART):
                here = ids[:, top::APART, left::APART]                 # (B, h / 4, w / 4): tried together
                around = [(r + k - 2) % rows for r in range(top, rows, APART) for k in range(APART)]
                beside = [(c + k - 2) % columns for c in range(left, columns, APART) for k in range(APART)]

                def windows(errors, around=around, beside=beside):     # (B, h, w) -> (B, h / 4, w / 4)
                    part = errors[:, around][:, :, beside]
                    return part.reshape(len(ids), rows // APART, APART, columns // APART, APART).sum((2, 4))

                least, chosen = windows(best), here.clone()
                for k in range(1, near):
                    tried = ids.clone()
                    tried[:, top::APART, left::APART] = nearest[here, k]
                    found = windows(squares(tried))
                    better = found < least
                    least, chosen = torch.where(better, found, least), torch.where(better, nearest[here, k], chosen)
                tried = ids.clone()
                tried[:, top::APART, left::APART] = chosen
                errors = squares(tried)
                falls = errors.sum((1, 2)) < best.sum((1, 2))
                ids[falls], best[falls] = tried[falls], errors[falls]
    return ids


def free(model: VQVAE, images: torch.Tensor, z: torch.Tensor, steps: int = FREE_STEPS) -> torch.Tensor:
    """The vectors, any at all, from which the decoder paints `images` best, by `steps` of Adam from z: same shape as z."""
    z = z.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.1 * model.quantizer.codebook.std().item())
    for _ in range(steps):
        error = (model.decoder(z.permute(0, 3, 1, 2)) + 0.5 - images).square().sum()
        z.grad, = torch.autograd.grad(error, z)
        optimizer.step()
    return z.detach()


def signed(n: int, jitter: int, seed: int) -> tuple[list[Scene], torch.Tensor]:
    """n held-out scenes that all have a sign, moved by up to `jitter` pixels, and their pictures."""
    rng, scenes = np.random.default_rng((seed, 97)), []
    while len(scenes) < n:
        scene = sample_scene(rng, "held-out", jitter=jitter)
        scenes += [scene] if scene.sign else []
    return scenes, draw_batch(scenes)


def row(pictures: torch.Tensor, truth: torch.Tensor, scenes: list[Scene], **more) -> dict:
    """How near the pictures are, and what can still be read in them."""
    error = (pictures - truth).square().mean().clamp(min=1e-10)
    out = {"psnr_db": round(-10 * error.log10().item(), 2),
           "objects": round(picture_net.noun_accuracy(checkpoints.load("picture_judge"), pictures, scenes), 4)}
    try:
        out["signs_ocr"] = round(float(np.mean([judges.read_sign(p) == s.sign for p, s in zip(pictures, scenes)])), 4)
    except ImportError as problem:
        print(f"the signs are not read: {problem}")
    return {**out, **more}


def main(argv: list[str] | None = None, file=FILE) -> dict:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m mmcourse.studies.ch03_limits", description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    start, model = time.process_time(), checkpoints.load("vqvae").requires_grad_(False)
    result = {"plan": {"pictures": args.pictures, "jitter": JITTER, "near": NEAR, "sweeps": SWEEPS, "codes": CODES,
                       "fitted_on": FITTED, "free_steps": FREE_STEPS, "seed": args.seed,
                       "sha256": checkpoints.manifest()["vqvae"]["sha256"]}, "rows": {}}

    def say(name, *measured, **more):
        result["rows"][name] = row(*measured, **more)
        print(name, result["rows"][name], f"{time.process_time() - start:.0f} CPU s", flush=True)

    scenes, truth = signed(args.pictures, 0, args.seed)
    say("in place", model.decode(model.encode(truth)), truth, scenes)
    scenes, truth = signed(args.pictures, JITTER, args.seed)
    say("true pictures", truth, truth, scenes)
    z, ids = vectors(model, truth), model.encode(truth)
    say("moved", model.decode(ids), truth, scenes)
    better = search(model, truth, ids, SWEEPS)
    say("better ids", model.decode(better), truth, scenes, changed=round((better != ids).float().mean().item(), 4))
    rng = np.random.default_rng((args.seed, 96))
    fitted = torch.cat([vectors(model, draw_batch([sample_scene(rng, jitter=JITTER) for _ in range(32)])).flatten(0, 2)
                        for _ in range(20)]).unique(dim=0)             # plain grounds are many, and all alike
    book = k_means(fitted[torch.randperm(len(fitted))[:FITTED]], CODES, rounds=5)
    say("more codes", paint_vectors(model, book[nearest_code(z.flatten(0, 2), book)].reshape(z.shape)), truth, scenes)
    say("no codes", paint_vectors(model, z), truth, scenes)
    say("free vectors", paint_vectors(model, free(model, truth, z)), truth, scenes)
    result["cpu_minutes"] = round((time.process_time() - start) / 60, 2)
    save(result, file)
    return result


if __name__ == "__main__":
    main()
