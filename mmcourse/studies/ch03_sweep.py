"""How large a codebook, which quantizer, which patch, and which cure keeps a codebook alive?

`python -m mmcourse.studies.ch03_sweep` trains every configuration of chapter 03's tables for the same number of steps on the
same pictures (about forty minutes of one core in all, a third of them for two more seeds of the rows with 512 codes) and
writes `data/results/ch03_sweep.json`, one configuration at a time: started again, it goes on with what is missing, and measures
the shipped tokenizer again if that has changed (`--only shipped`: nothing else). Reading the signs needs the `test` extra.
"""
import argparse
import base64
import io
import json
import os
import re
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from mmcourse import checkpoints, judges
from mmcourse.bits import entropy_bits
from mmcourse.judges import picture_net
from mmcourse.optim import Optim
from mmcourse.paths import RESULTS
from mmcourse.quantize import FSQ, VectorQuantizer, nearest_code
from mmcourse.training import History, Run, train
from mmcourse.vqvae import ResidualBlock, make_decoder, make_encoder, matte, vqvae_loss
from mmcourse.world.pictures import SIGN_TOP, SIZE, draw_batch
from mmcourse.world.scene import Scene, sample_scene

STEPS, BATCH, LR, MUON_LR, WIDTH, SEED, MORE_SEEDS = 1000, 16, 3e-3, 0.04, 64, 0, (1, 2)
SIGN_WEIGHT = 6.0                                  # how much a pixel in the sign's rows counts
JUDGED, READ, COUNTED, SHOWN = 512, 128, 2048, 4   # pictures for the judges, signs for the OCR, pictures for the entropy
LEVELS = {512: (8, 8, 8), 8192: (8, 8, 8, 4, 4), 65536: (8, 8, 8, 8, 4, 4)}
NOT_THE_QUANTIZERS = ("patch", "table", "optimizer", "sign_weight")
KEPT = ("psnr_db", "fd", "objects", "signs_ocr", "codes_used", "perplexity", "cpu_minutes")      # of a further seed
FILE = RESULTS / "ch03_sweep.json"


# ---------------------------------------------------------------- quantizers to compare

def rotate_towards(x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The value of `codes`, the gradient of x turned and scaled as x was to reach its code: (N, d), (N, d) -> (N, d).

    The rotation trick (Fifty et al. 2024): where straight-through copies the gradient, this one rotates it along.
    """
    with torch.no_grad():
        a, b = F.normalize(x, dim=1), F.normalize(codes, dim=1)
        r = F.normalize(a + b, dim=1)
        scale = codes.norm(dim=1, keepdim=True) / x.norm(dim=1, keepdim=True).clamp(min=1e-6)
    dot_r, dot_a = (x * r).sum(1, keepdim=True), (x * a).sum(1, keepdim=True)
    return scale * (x - 2 * dot_r * r + 2 * dot_a * b)


def k_means(vectors: torch.Tensor, codes: int, rounds: int = 10) -> torch.Tensor:
    """Lloyd's algorithm from random members: (N, d) -> (codes, d)."""
    book = vectors[torch.randint(len(vectors), (codes,))].clone()
    for _ in range(rounds):
        chosen = nearest_code(vectors, book)
        counts = torch.bincount(chosen, minlength=codes)[:, None]
        means = torch.zeros_like(book).index_add_(0, chosen, vectors) / counts.clamp(min=1)
        book = torch.where(counts > 0, means, book)
    return book


class Learned(nn.Module):
    """A codebook learnt by gradient (van den Oord et al. 2017): the plain quantizer, to which one cure at a time is added.

    Args:
        start: "random", or "k-means" of the encoder's vectors after `warmup` steps without a quantizer.
        restart: codes that die are put onto random vectors of the batch.
        normalise: vectors and codes have length 1 (Yu et al. 2021).
        gradient: "straight", "rotated" (Fifty et al. 2024), or "forgotten", which is the bug.
    """

    def __init__(self, codes: int = 512, dim: int = 16, start: str = "random", restart: bool = False,
                 normalise: bool = False, gradient: str = "straight", commitment: float = 0.25, warmup: int = 50):
        super().__init__()
        self.codes, self.commitment, self.restart, self.normalise = codes, commitment, restart, normalise
        self.gradient, self.warmup = gradient, warmup if start == "k-means" else 0
        self.embed = nn.Parameter(torch.randn(codes, dim))             # by this name Muon leaves it to AdamW: it is a table
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.recent: list[torch.Tensor] = []

    codebook = property(lambda self: self.embed)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, d) -> quantized (N, d), indices (N,), codebook loss plus commitment loss."""
        if self.training and (waiting := self._wait(x)) is not None:
            return waiting
        table = F.normalize(self.codebook, dim=1) if self.normalise else self.codebook
        x = F.normalize(x, dim=1) if self.normalise else x
        indices = nearest_code(x.detach(), table.detach())
        codes = table[indices]
        loss = F.mse_loss(codes, x.detach()) + self.commitment * F.mse_loss(x, codes.detach())
        if self.training and self.restart:
            self._restart(x.detach(), indices)
        if self.gradient == "forgotten":
            return codes, indices, loss
        if self.gradient == "rotated":
            return rotate_towards(x, codes.detach()), indices, loss
        return x + (codes - x).detach(), indices, loss

    def _wait(self, x):
        """While warming up, x itself passes; the last of these steps fills the codebook."""
        self.steps += 1
        if self.steps > self.warmup:
            return None
        self.recent = [*self.recent[-7:], x.detach()]
        if self.steps == self.warmup:
            self.codebook.data.copy_(k_means(torch.cat(self.recent), self.codes))
            self.recent = []
        return x, torch.zeros(len(x), dtype=torch.long), x.new_zeros(())

    @torch.no_grad()
    def _restart(self, x, indices):
        """The rule of `VectorQuantizer`: dead is who is used less than 3 % of a fair share."""
        self.counts.mul_(0.98).add_(torch.bincount(indices, minlength=self.codes), alpha=0.02)
        dead = self.counts < 0.03 * len(x) / self.codes
        if n := int(dead.sum()):
            self.codebook.data[dead] = x[torch.randint(len(x), (n,))]
            self.counts[dead] = len(x) / self.codes


class Averaged(VectorQuantizer):
    """The shipped quantizer without its two helps: it starts at random, and the dead stay dead."""

    def _restart(self, x, dead):
        pass


def configurations() -> dict[str, dict]:
    """{name: what to build}: the sweep (quantizer x codes x patch) and, at 512 codes of 8x8, one cure at a time."""
    sweep = {f"{kind} {codes} patch {patch}": {"kind": kind, "codes": codes, "patch": patch, "table": "sweep"}
             for codes in (512, 8192, 65536) for patch in (8, 16) for kind in ("FSQ", "VQ")}
    cures = {"nothing": {}, "moving averages": {"kind": "averages"}, "k-means start": {"start": "k-means"},
             "restart": {"restart": True}, "8 numbers": {"dim": 8}, "8 numbers of length 1": {"dim": 8, "normalise": True},
             "rotation trick": {"gradient": "rotated"}, "copy forgotten": {"gradient": "forgotten"}}
    out = {name: s for name, s in sweep.items() if s["codes"] == 512}
    out |= {f"cure: {name}": {"kind": "learnt", "codes": 512, "patch": 8, "table": "cures", **more}
            for name, more in cures.items()}
    out |= {"loss: plain squares": {**sweep["VQ 512 patch 8"], "table": "loss", "sign_weight": 1.0}}
    out |= {f"Muon: {kind} 512 patch 8": {**sweep[f"{kind} 512 patch 8"], "table": "optimizer", "optimizer": "muon"}
            for kind in ("VQ", "FSQ")}
    return out | dict(sorted(sweep.items(), key=lambda item: (item[1]["codes"], item[1]["kind"], -item[1]["patch"])))


def repeated(spec: dict) -> bool:
    """Whether a configuration is trained with `MORE_SEEDS` too: those of 512 codes and 8x8 patches that are compared."""
    compared = (spec["codes"], spec["patch"]) == (512, 8) and spec["table"] in ("sweep", "cures")
    return compared and spec.get("gradient") != "forgotten"


def make_quantizer(kind: str, codes: int, dim: int = 16, **options) -> tuple[nn.Module, int]:
    """The quantizer of one configuration, and how many numbers a patch has for it."""
    if kind == "FSQ":
        return FSQ(LEVELS[codes]), len(LEVELS[codes])
    classes = {"VQ": VectorQuantizer, "averages": Averaged, "learnt": Learned}
    if kind not in classes:
        raise ValueError(f"quantizers are FSQ, {', '.join(classes)}, got {kind!r}")
    return classes[kind](codes, dim, **options), dim


class Tokenizer(nn.Module):
    """The chapter's encoder and decoder around any quantizer, for patches of 8 or 16 pixels."""

    def __init__(self, quantizer: nn.Module, dim: int, patch: int = 8, width: int = WIDTH):
        super().__init__()
        if patch not in (8, 16):
            raise ValueError(f"patches are 8 or 16 pixels wide, got {patch}")
        self.patch, self.vocab_size, self.quantizer = patch, quantizer.codebook_size, quantizer
        encoder, decoder = list(make_encoder(width, dim, 1)), list(make_decoder(width, dim))
        if patch == 16:                                                # one more halving before the last three layers
            encoder[-3:-3] = [nn.Conv2d(width, width, 2, stride=2), ResidualBlock(width, 1)]
            decoder[3:3] = [nn.Conv2d(width, 4 * width, 1), nn.PixelShuffle(2)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)

    def forward(self, images: torch.Tensor):
        """(B, 3, 64, 64) in [0, 1] -> reconstruction of the same shape, indices (B, h, w), the quantizer's loss."""
        z = self.encoder(matte(images, self.patch) * 2 - 1)
        B, D, H, W = z.shape
        flat = z.permute(0, 2, 3, 1).reshape(-1, D)                    # (B, D, H, W) -> (B H W, D)
        quantized, indices, loss = self.quantizer(flat)
        q = quantized.reshape(B, H, W, D).permute(0, 3, 1, 2)          # (B H W, D) -> (B, D, H, W)
        return self.decoder(q) + 0.5, indices.reshape(B, H, W), loss


# ---------------------------------------------------------------- measuring

@cache
def held_out() -> tuple[list[Scene], torch.Tensor]:
    """The scenes that everything is measured on, none of them trained on, and their pictures."""
    rng = np.random.default_rng((SEED, 99))
    scenes = [sample_scene(rng, "held-out") for _ in range(COUNTED)]
    return scenes, draw_batch(scenes)


def letters_right(said: str, sign: str) -> int:
    """How many letters of the sign stand in their place."""
    return sum(a == b for a, b in zip(said, sign))


def judge(pictures: torch.Tensor) -> dict:
    """What can still be seen in (JUDGED, 3, 64, 64): objects by the course's classifier, signs by an OCR engine that knows
    nothing of this world and by template, and the Frechet distance to as many true pictures of other scenes.
    """
    scenes, truth = held_out()
    net = checkpoints.load("picture_judge")
    signed = [i for i, s in enumerate(scenes[:JUDGED]) if s.sign]
    said = [s.sign if s else "" for s in judges.PictureReader().read(pictures[signed])]
    right = sum(letters_right(a, scenes[i].sign) for a, i in zip(said, signed))
    fd = picture_net.frechet_distance(net.features(pictures), net.features(truth[JUDGED:2 * JUDGED]))
    out = {"objects": picture_net.noun_accuracy(net, pictures, scenes[:JUDGED]), "fd": fd,
           "letters": right / sum(len(scenes[i].sign) for i in signed)}
    try:
        out["signs_ocr"] = float(np.mean([judges.read_sign(pictures[i]) == scenes[i].sign for i in signed[:READ]]))
    except ImportError as error:
        print(f"the signs are not read: {error}")
    return {name: round(value, 4) for name, value in out.items()}


def strip(pictures: torch.Tensor) -> str:
    """(B, 3, H, W) side by side as a WebP file in base64: it has all colours, where a small palette turns red brown."""
    row = (torch.cat(list(pictures), 2).permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(row).save(file, "WEBP", quality=92, method=6)
    return base64.b64encode(file.getvalue()).decode()


@torch.no_grad()
def measure(model: Tokenizer, history: History) -> dict:
    """Everything that the chapter's tables say of one trained configuration."""
    _, truth = held_out()
    parts = [model(x) for x in truth.split(16)]
    ids, pictures = torch.cat([p[1] for p in parts]), torch.cat([p[0] for p in parts]).clamp(0, 1)
    use = torch.bincount(ids.flatten(), minlength=model.vocab_size).sort(descending=True).values
    entropy = entropy_bits(use)
    tokens = ids[0].numel()
    return {"tokens": tokens, "psnr_db": round(-10 * (pictures - truth).square().mean().log10().item(), 2),
            **judge(pictures[:JUDGED]), "codes_used": int((use > 0).sum()), "perplexity": round(2 ** entropy, 1),
            "nominal_bits": round(tokens * float(np.log2(model.vocab_size)), 1), "measured_bits": round(tokens * entropy, 1),
            "cpu_minutes": round(history.cpu_minutes, 2), "curve_db": [round(v, 2) for v in history.column("psnr")],
            "use": use.tolist() if model.vocab_size == 512 else None, "pictures": strip(pictures[:SHOWN])}


def build(spec: dict, seed: int = SEED) -> Tokenizer:
    """A fresh model of one configuration; the seed decides its first weights."""
    torch.manual_seed(seed)
    quantizer, dim = make_quantizer(**{k: v for k, v in spec.items() if k not in NOT_THE_QUANTIZERS})
    return Tokenizer(quantizer, dim, spec["patch"])


def batch(rng: np.random.Generator) -> tuple[torch.Tensor]:
    """Training scenes on the grid, as the transformer's world has them."""
    return (draw_batch([sample_scene(rng) for _ in range(BATCH)]),)


def letter_loss(model: nn.Module, images: torch.Tensor, weight: float = SIGN_WEIGHT) -> dict:
    """`vqvae_loss` in which the rows of the sign count `weight` times as much as the others."""
    weights = torch.ones(SIZE, 1)
    weights[SIGN_TOP:] = weight
    return vqvae_loss(model, images, weights)


def run(spec: dict, steps: int = STEPS, seed: int = SEED, progress: bool = False) -> dict:
    """Train one configuration and measure it."""
    model, loss = build(spec, seed), partial(letter_loss, weight=spec.get("sign_weight", SIGN_WEIGHT))
    history = train(model, batch, loss, steps=steps,
                    optim=Optim(spec.get("optimizer", "adamw"), lr=LR, muon_lr=MUON_LR),
                    run=Run(seed=seed, log_every=20, progress=progress))
    if history.interrupted:
        raise KeyboardInterrupt
    return {**spec, **measure(model, history)}


def reference() -> dict:
    """The true pictures through the same judges (the ceiling of every figure), and the shipped tokenizer."""
    _, truth = held_out()
    model = checkpoints.load("vqvae")
    with torch.no_grad():
        decoded = torch.cat([model.decode(model.encode(x)) for x in truth[:JUDGED].split(32)])
    psnr = -10 * (decoded - truth[:JUDGED]).square().mean().log10().item()
    return {"true pictures": {**judge(truth[:JUDGED]), "pictures": strip(truth[:SHOWN])},
            "shipped": {**judge(decoded), "psnr_db": round(psnr, 2), "pictures": strip(decoded[:SHOWN]),
                        "cpu_minutes": checkpoints.manifest()["vqvae"]["cpu_minutes"], "sha256": shipped_hash()}}


def shipped_hash() -> str:
    """Which tokenizer is shipped, so that a figure about another one is noticed."""
    return checkpoints.manifest()["vqvae"]["sha256"]


def save(result: dict, path=FILE) -> None:
    """Write the result so that a crash leaves the old file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    text = json.dumps(result, indent=1, sort_keys=True)
    text = re.sub(r"\[[^\[\]{}\"]*\]", lambda found: " ".join(found[0].split()), text)   # a list of numbers on one line
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)


def main(argv: list[str] | None = None) -> dict:
    """Run what the file does not hold yet."""
    parser = argparse.ArgumentParser(prog="python -m mmcourse.studies.ch03_sweep", description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="run only configurations whose name contains this")
    parser.add_argument("--seeds", type=int, nargs="*", default=MORE_SEEDS, help="further seeds for the rows that are compared")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    plan = {"steps": args.steps, "batch": BATCH, "lr": LR, "muon_lr": MUON_LR, "width": WIDTH, "seed": SEED,
            "judged": JUDGED, "read": READ, "counted": COUNTED, "levels": {str(k): list(v) for k, v in LEVELS.items()}}
    result = json.loads(FILE.read_text("utf-8")) if FILE.exists() and not args.fresh else {"plan": plan, "runs": {}}
    if result["plan"] != plan:
        raise ValueError(f"{FILE.name} was made with {result['plan']}: say --fresh to replace it")
    if result.get("reference", {}).get("shipped", {}).get("sha256") != shipped_hash():
        result["reference"] = reference()
        save(result)
    for name, spec in configurations().items():
        if name not in result["runs"] and (args.only or "") in name:
            result["runs"][name] = found = run(spec, args.steps)
            save(result)
            print(f"{name}: {found['psnr_db']} dB, {found['codes_used']} codes, {found['cpu_minutes']} CPU minutes", flush=True)
    for seed in args.seeds:
        for name, spec in configurations().items():
            seeds = result.setdefault("more seeds", {}).setdefault(name, {}) if repeated(spec) else None
            if seeds is not None and str(seed) not in seeds and (args.only or "") in name:
                found = run(spec, args.steps, seed)
                seeds[str(seed)] = {key: found[key] for key in KEPT if key in found}
                save(result)
                print(f"{name}, seed {seed}: {seeds[str(seed)]}", flush=True)
    return result


if __name__ == "__main__":
    main()
