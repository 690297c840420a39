"""How large a codebook, which quantizer, which patch, which cure for dead codes? About 40 CPU minutes.

Every configuration of chapter 03's tables is trained for the same number of steps on the same pictures: those
of `THREE_SEEDS` with three seeds, the others with one (`--only NAME` measures further seeds of them too). The
shipped tokenizer is measured again when it has changed. How small a Frechet distance can be that means nothing
is measured too: that between sets of true pictures.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse import checkpoints
from mmcourse.bits import entropy_bits
from mmcourse.judges.metrics import frechet_distance, pooled_psnr
from mmcourse.optim import Optim
from mmcourse.quantize import FSQ, VectorQuantizer, k_means, nearest_code
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch03 import SHOWN, SIGN_WEIGHT, batch_of, held_out, judge, letter_loss, strip
from mmcourse.training import History, Run, train
from mmcourse.vqvae import ResidualBlock, make_decoder, make_encoder, matte
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene

LEVELS = {512: (8, 8, 8), 8192: (8, 8, 8, 4, 4), 65536: (8, 8, 8, 8, 4, 4)}     # of FSQ, by the number of codes
NOT_THE_QUANTIZERS = ("patch", "table", "optimizer", "sign_weight")
THREE_SEEDS = ("VQ 512 patch 8", "FSQ 512 patch 8", "VQ 65536 patch 8", "FSQ 65536 patch 8", "VQ 512 patch 16", *(
    f"cure: {name}" for name in (                       # of the rest one is enough
    "nothing", "moving averages", "k-means start", "restart", "8 numbers", "8 numbers of length 1", "SimVQ", "rotation trick")))
KEPT = ("psnr_db", "fd", "objects", "signs_ocr", "codes_used", "perplexity", "cpu_minutes")    # of a further seed


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 1000
    batch: int = 16
    lr: float = 3e-3
    muon_lr: float = 0.04
    width: int = 64
    seed: int = 0                       # of the whole tables; further seeds: `THREE_SEEDS`
    judged: int = 512                   # pictures for the judges
    read: int = 128                     # signs for the OCR
    counted: int = 2048                 # pictures whose codes are counted


# ---------------------------------------------------------------- quantizers to compare

def rotate_towards(x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The value of `codes`, the gradient of x turned and scaled as x was to reach its code: (N, d), (N, d) ->
    (N, d).

    The rotation trick (Fifty et al. 2024): where straight-through copies the gradient, this one rotates it
    along.
    """
    with torch.no_grad():
        a, b = F.normalize(x, dim=1), F.normalize(codes, dim=1)
        r = F.normalize(a + b, dim=1)
        scale = codes.norm(dim=1, keepdim=True) / x.norm(dim=1, keepdim=True).clamp(min=1e-6)
    dot_r, dot_a = (x * r).sum(1, keepdim=True), (x * a).sum(1, keepdim=True)
    return scale * (x - 2 * dot_r * r + 2 * dot_a * b)


class Learned(nn.Module):
    """A codebook learned by gradient (van den Oord et al. 2017): the plain quantizer, to which one cure at a
    time is added.

    Args:
        start: "random", or "k-means" of the encoder's vectors after `warmup` steps without a quantizer.
        restart: dead codes are restarted, by the rule of `VectorQuantizer`.
        normalize: vectors and codes have length 1 (Yu et al. 2021).
        linear: the codes stay as they were drawn, and one matrix that they share is learned: so whoever is
            chosen moves all of them (SimVQ, Zhu et al. 2024).
        gradient: "straight", "rotated" (Fifty et al. 2024), or "forgotten", which is the bug.
    """

    def __init__(self, codebook_size: int = 512, dim: int = 16, start: str = "random", restart: bool = False,
                 normalize: bool = False, linear: bool = False, gradient: str = "straight",
                 commitment: float = 0.25, warmup: int = 50, decay: float = 0.98, dead_below: float = 0.03):
        super().__init__()
        self.codebook_size, self.commitment, self.gradient = codebook_size, commitment, gradient
        self.restart, self.normalize, self.warmup = restart, normalize, warmup if start == "k-means" else 0
        self.decay, self.dead_below = decay, dead_below
        self.embed = nn.Parameter(torch.randn(codebook_size, dim))     # by this name Muon leaves it to AdamW
        self.mix = nn.Linear(dim, dim, bias=False) if linear else None
        self.embed.requires_grad_(not linear)
        self.register_buffer("cluster_size", torch.ones(codebook_size))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.recent: list[torch.Tensor] = []

    @property
    def codebook(self) -> torch.Tensor:
        """The codes (K, d): a parameter, or what one matrix makes of numbers that stay."""
        return self.mix(self.embed) if self.mix else self.embed

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, d) -> quantized (N, d), indices (N,), codebook loss plus commitment loss."""
        if self.training and (waiting := self._wait(x)) is not None:
            return waiting
        table = F.normalize(self.codebook, dim=1) if self.normalize else self.codebook
        x = F.normalize(x, dim=1) if self.normalize else x
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
            self.codebook.data.copy_(k_means(torch.cat(self.recent), self.codebook_size))
            self.recent = []
        return x, torch.zeros(len(x), dtype=torch.long), x.new_zeros(())

    @torch.no_grad()
    def _restart(self, x, indices):
        """A code is dead if it is used less than `dead_below` of its fair share: it is put onto a random
        vector."""
        count, fair = torch.bincount(indices, minlength=self.codebook_size), len(x) / self.codebook_size
        self.cluster_size.mul_(self.decay).add_(count, alpha=1 - self.decay)
        dead = self.cluster_size < self.dead_below * fair
        if n := int(dead.sum()):
            self.codebook.data[dead] = x[torch.randint(len(x), (n,))]
            self.cluster_size[dead] = fair


class EMAAlone(VectorQuantizer):
    """The shipped quantizer without its two helps: it starts at random, and dead codes stay dead."""

    def _restart(self, x, dead):
        pass


QUANTIZERS = {"VQ": VectorQuantizer, "averages": EMAAlone, "learned": Learned}


def configurations() -> dict[str, dict]:
    """{name: what to build}: the sweep (quantizer x codes x patch) and, at 512 codes of 8x8, one cure at a
    time."""
    sweep = {f"{kind} {codes} patch {patch}": {"kind": kind, "codes": codes, "patch": patch, "table": "sweep"}
             for codes in (512, 8192, 65536) for patch in (8, 16) for kind in ("FSQ", "VQ")}
    cures = {"nothing": {}, "moving averages": {"kind": "averages"}, "k-means start": {"start": "k-means"},
             "restart": {"restart": True}, "8 numbers": {"dim": 8},
             "8 numbers of length 1": {"dim": 8, "normalize": True}, "SimVQ": {"linear": True},
             "rotation trick": {"gradient": "rotated"}, "copy forgotten": {"gradient": "forgotten"}}
    out = {name: s for name, s in sweep.items() if s["codes"] == 512}
    out |= {f"cure: {name}": {"kind": "learned", "codes": 512, "patch": 8, "table": "cures", **more}
            for name, more in cures.items()}
    out |= {"loss: plain squares": {**sweep["VQ 512 patch 8"], "table": "loss", "sign_weight": 1.0}}
    out |= {f"Muon: {name}": {**sweep[name], "table": "optimizer", "optimizer": "muon"}
            for name in ("VQ 512 patch 8", "FSQ 512 patch 8")}
    order = sorted(sweep, key=lambda name: (sweep[name]["codes"], sweep[name]["kind"], -sweep[name]["patch"]))
    return out | {name: sweep[name] for name in order}


def make_quantizer(kind: str, codes: int, dim: int = 16, **options) -> tuple[nn.Module, int]:
    """The quantizer of one configuration, and how many numbers a patch has for it."""
    if kind == "FSQ":
        return FSQ(LEVELS[codes]), len(LEVELS[codes])
    if kind not in QUANTIZERS:
        raise ValueError(f"quantizers are FSQ, {', '.join(QUANTIZERS)}, got {kind!r}")
    return QUANTIZERS[kind](codes, dim, **options), dim


class Tokenizer(nn.Module):
    """The chapter's encoder and decoder around any quantizer, for patches of 8 or 16 pixels."""

    def __init__(self, quantizer: nn.Module, dim: int, patch: int = 8, width: int = 64):
        super().__init__()
        if patch not in (8, 16):
            raise ValueError(f"patches are 8 or 16 pixels wide, got {patch}")
        self.patch, self.vocab_size, self.quantizer = patch, quantizer.codebook_size, quantizer
        encoder, decoder = list(make_encoder(width, dim, 1)), list(make_decoder(width, dim))
        if patch == 16:                                            # one more halving before the last three layers
            encoder[-3:-3] = [nn.Conv2d(width, width, 2, stride=2), ResidualBlock(width, 1)]
            decoder[3:3] = [nn.Conv2d(width, 4 * width, 1), nn.PixelShuffle(2)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)

    def forward(self, images: torch.Tensor):
        """(B, 3, 64, 64) in [0, 1] -> reconstruction of the same shape, indices (B, h, w), the quantizer's
        loss."""
        z = self.encoder(matte(images, self.patch) * 2 - 1)
        B, D, H, W = z.shape
        flat = z.permute(0, 2, 3, 1).reshape(-1, D)                    # (B, D, H, W) -> (B H W, D)
        quantized, indices, loss = self.quantizer(flat)
        q = quantized.reshape(B, H, W, D).permute(0, 3, 1, 2)          # (B H W, D) -> (B, D, H, W)
        return self.decoder(q) + 0.5, indices.reshape(B, H, W), loss


# ---------------------------------------------------------------- measuring

@torch.no_grad()
def measure(model: Tokenizer, history: History, plan: Plan) -> dict:
    """Everything that the chapter's tables say of one trained configuration."""
    _, truth = held_out(plan.counted)
    parts = [model(x) for x in truth.split(16)]
    ids, pictures = torch.cat([p[1] for p in parts]), torch.cat([p[0] for p in parts]).clamp(0, 1)
    use = torch.bincount(ids.flatten(), minlength=model.vocab_size).sort(descending=True).values
    entropy = entropy_bits(use)
    tokens = ids[0].numel()
    return {"tokens": tokens, "psnr_db": round(pooled_psnr(pictures, truth), 2),
            **judge(pictures[:plan.judged], plan.read), "codes_used": int((use > 0).sum()),
            "perplexity": round(2 ** entropy, 1),
            "nominal_bits": round(tokens * float(np.log2(model.vocab_size)), 1),
            "measured_bits": round(tokens * entropy, 1), "cpu_minutes": round(history.cpu_minutes, 2),
            "curve_db": [round(v, 2) for v in history.column("psnr")],
            "use": use.tolist() if model.vocab_size == 512 else None, "pictures": strip(pictures[:SHOWN])}


def build(spec: dict, seed: int = 0, width: int = 64) -> Tokenizer:
    """A fresh model of one configuration; the seed decides its first weights."""
    torch.manual_seed(seed)
    quantizer, dim = make_quantizer(**{k: v for k, v in spec.items() if k not in NOT_THE_QUANTIZERS})
    return Tokenizer(quantizer, dim, spec["patch"], width)


def row(plan: Plan, spec: dict, seed: int) -> dict:
    """Train one configuration and measure it."""
    model = build(spec, seed, plan.width)
    loss = partial(letter_loss, weight=spec.get("sign_weight", SIGN_WEIGHT))
    optim = Optim(spec.get("optimizer", "adamw"), lr=plan.lr, muon_lr=plan.muon_lr)
    history = finished(train(model, batch_of(plan.batch), loss, steps=plan.steps, optim=optim,
                             run=Run(seed=seed, log_every=20, progress=False)))
    return {**spec, **measure(model, history, plan)}


def further_row(plan: Plan, spec: dict, seed: int) -> dict:
    """The same for a further seed, of which only the figures are kept."""
    found = row(plan, spec, seed)
    return {key: found[key] for key in KEPT if key in found}


def null_row(plan: Plan, sets: int = 40) -> dict:
    """The Frechet distances of true pictures: of `sets` other sets of held-out ones to the same true pictures
    as everything else's. What lies within them says nothing against a set of pictures."""
    net, truth = checkpoints.load("picture_judge"), held_out(2 * plan.judged)[1][plan.judged:]
    reference, found = net.features(truth), []
    for i in range(sets):
        rng = np.random.default_rng((i, 100))
        pictures = draw_batch([sample_scene(rng, "held-out") for _ in range(plan.judged)])
        found.append(round(frechet_distance(net.features(pictures), reference), 4))
    return {"fd": sorted(found), "judged": plan.judged}


def true_row(plan: Plan) -> dict:
    """The true pictures through the same judges: the ceiling of every figure."""
    truth = held_out(plan.judged)[1]
    return {**judge(truth, plan.read), "pictures": strip(truth[:SHOWN])}


@torch.no_grad()
def shipped_row(plan: Plan) -> dict:
    """The shipped tokenizer, and which one it was."""
    truth, model = held_out(plan.judged)[1], checkpoints.load("vqvae")
    decoded = torch.cat([model.decode(model.encode(x)) for x in truth.split(32)])
    return {**judge(decoded, plan.read), "psnr_db": round(pooled_psnr(decoded, truth), 2),
            "pictures": strip(decoded[:SHOWN]), "cpu_minutes": checkpoints.manifest()["vqvae"]["cpu_minutes"],
            "sha256": checkpoints.identity("vqvae")}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Ceiling, the distances of true pictures, shipped tokenizer, every configuration; then further seeds, which
    are optional but for `THREE_SEEDS`."""
    out = [Job("true pictures", partial(true_row, plan), section=("reference",)),
           Job("other true pictures", partial(null_row, plan), section=("reference",)),
           Job("shipped", partial(shipped_row, plan), section=("reference",))]
    out += [Job(name, partial(row, plan, spec, plan.seed), section=("runs",), seed=plan.seed)
            for name, spec in configurations().items()]
    return out + [Job(name, partial(further_row, plan, spec, seed), section=("more seeds", name), key=str(seed),
                      seed=seed, optional=name not in THREE_SEEDS)
                  for seed in seeds if seed != plan.seed for name, spec in configurations().items()]


def head(plan: Plan) -> dict:
    """The plan; an older shipped tokenizer is only one row of it."""
    return {"plan": {**asdict(plan), "levels": {str(codes): levels for codes, levels in LEVELS.items()}}}


def outdated(result: dict, head: dict) -> None:
    """The row of a tokenizer that is shipped no more."""
    if result.get("reference", {}).get("shipped", {}).get("sha256") != checkpoints.identity("vqvae"):
        result.get("reference", {}).pop("shipped", None)


TOY = Plan(steps=1, batch=2, width=16, judged=100, read=2, counted=200)
STUDY = Study("ch03_sweep", Plan(), TOY, jobs, head, seeds=(0, 1, 2), outdated=outdated)
main = STUDY.run
