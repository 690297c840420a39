"""What a perceptual and an adversarial loss add to squared error; about 9 CPU minutes for three seeds.

A small VQ-VAE is trained with squared error. Then its tokens are left as they are, and its decoder goes on
learning four times from the same weights, on the same pictures, for the same number of steps: with squared
error alone (the control), with a perceptual loss, with a critic, with both, which is VQ-GAN (Esser et al.
2021). The perceptual loss has a classifier of its own: what measures the pictures must not be what they were
trained to please.
"""
import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse import checkpoints
from mmcourse.judges.metrics import frechet_distance, pooled_psnr, sharpness
from mmcourse.judges.picture_net import PictureNet, picture_loss
from mmcourse.optim import Optim
from mmcourse.paths import cache_dir
from mmcourse.recipes import picture_judge
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch03 import SHOWN, batch_of, held_out, judge, letter_loss, strip
from mmcourse.training import History, Run, train
from mmcourse.vqvae import VQVAE

BATCH = 16
WIDTH = 64                              # of the tokenizer
FIRST_LR = 3e-3                         # of the tokenizer's own training
MUON_LR = 0.04
NET_WIDTH = 32                          # of the classifier in the perceptual loss
NET_LR = 2e-3
LR = 1e-3                               # of the four decoders
KEPT = ("psnr_db", "fd_same", "fd_same_own", "sharpness", "objects", "signs_ocr", "cpu_minutes")   # of a further seed
CRITIC_LR = 2e-3


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    first_steps: int = 800              # of the tokenizer
    net_steps: int = 500                # of the classifier in the perceptual loss
    steps: int = 500                    # of each decoder afterwards
    seed: int = 0
    judged: int = 512                   # pictures; a quarter of them have their sign read
    perceptual: float = 1.0             # how much the perceptual loss counts
    adversarial: float = 0.5            # the critic's share of the gradient


def ways(plan: Plan) -> dict[str, tuple[float, float]]:
    """{name: (how much the perceptual loss counts, how much the critic)}."""
    return {"squared error": (0.0, 0.0), "+ perceptual": (plan.perceptual, 0.0),
            "+ critic": (0.0, plan.adversarial), "+ both (VQ-GAN)": (plan.perceptual, plan.adversarial)}


class Perceptual(nn.Module):
    """How differently a classifier sees two batches of pictures: the squared difference of its features at
    three depths, each place's features at length 1 (Zhang et al. 2018, without their fitted weights)."""

    def __init__(self, net: PictureNet, depths: tuple[int, ...] = (1, 3, 5)):
        super().__init__()
        self.net, self.depths = net.requires_grad_(False).eval(), depths

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """(B, 3, 64, 64) twice -> a scalar; 0 for equal pictures."""
        total = a.new_zeros(())
        a, b = a * 2 - 1, b * 2 - 1
        for depth, layer in enumerate(self.net.grid):
            a, b = layer(a), layer(b)
            if depth in self.depths:
                total = total + (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean()
        return total


class Critic(nn.Sequential):
    """True or painted? One answer for each of 16x16 places, of which each sees 18x18 pixels (PatchGAN, Isola
    et al. 2017): (B, 3, 64, 64) -> (B, 1, 16, 16)."""

    def __init__(self, width: int = 32):
        super().__init__(nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
                         nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
                         nn.Conv2d(2 * width, 1, 3, padding=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """True pictures above 0, painted ones below. Around 0, as [0, 1] is not, it learns several times as
        fast."""
        return super().forward(images * 2 - 1)


class PerceptualLoss:
    """Squared error, plus a perceptual part, plus what the critic says; the critic learns one step in each
    call.

    The critic's part is scaled so that its gradient at the last layer is `adversarial` times that of all the
    rest (Esser et al. 2021): else one of the two would drown the other.
    """

    def __init__(self, perceptual: nn.Module, strength: float, adversarial: float, seed: int = 0):
        torch.manual_seed(seed)
        self.perceptual, self.strength, self.adversarial, self.critic = perceptual, strength, adversarial, Critic()
        self.optimizer = torch.optim.AdamW(self.critic.parameters(), lr=CRITIC_LR, betas=(0.5, 0.9))

    def __call__(self, decoder: nn.Module, codes: torch.Tensor, truth: torch.Tensor) -> dict:
        """Codes (B, D, 8, 8) and the pictures that they came from -> the loss and its parts."""
        painted = decoder(codes) + 0.5
        squares = (painted - truth).square().mean()
        out = {"psnr": -10 * squares.detach().log10()}
        loss = 10 * squares
        if self.strength:
            loss = loss + self.strength * self.perceptual(painted, truth)
        if self.adversarial:
            out["critic"] = self.teach_the_critic(painted.detach(), truth)
            fooled = -self.critic(painted).mean()
            last = decoder[-2].weight
            ours, theirs = (torch.autograd.grad(part, last, retain_graph=True)[0].norm()
                            for part in (loss, fooled))
            loss = loss + self.adversarial * (ours / theirs.clamp(min=1e-6)).clamp(max=1e3) * fooled
        return {"loss": loss, **out}

    def teach_the_critic(self, painted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """One step of the hinge loss: true pictures above 1, painted ones below -1. 2: at a loss; 0: never
        wrong."""
        with torch.enable_grad():
            loss = F.relu(1 - self.critic(truth)).mean() + F.relu(1 + self.critic(painted)).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return loss.detach()


@torch.no_grad()
def codes_of(model: VQVAE, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, 64, 64) -> the vectors of their codes (B, D, 8, 8), in evaluation: the codebook stays as it
    is."""
    return model.quantizer.codebook[model.encode(images)].permute(0, 3, 1, 2)


@cache
def first_model(plan: Plan) -> tuple[VQVAE, History]:
    """A small tokenizer of squared error alone; its training goes on where it was stopped."""
    torch.manual_seed(plan.seed)
    model = VQVAE(width=WIDTH)
    run = cache_dir() / "runs" / f"ch03_gan-first-{plan.first_steps}-{plan.seed}.pt"
    return model, finished(train(model, batch_of(BATCH), letter_loss, steps=plan.first_steps,
                                 optim=Optim("muon", lr=FIRST_LR, muon_lr=MUON_LR),
                                 run=Run(seed=plan.seed, resume=run)))


@cache
def own_net(plan: Plan) -> tuple[PictureNet, History]:
    """The classifier of the perceptual loss, which judges nothing."""
    torch.manual_seed(plan.seed + 10)
    net = PictureNet(NET_WIDTH)
    run = cache_dir() / "runs" / f"ch03_gan-net-{plan.net_steps}-{plan.seed}.pt"
    return net, finished(train(net, picture_judge.batch, picture_loss, steps=plan.net_steps,
                               optim=Optim(lr=NET_LR), run=Run(seed=plan.seed + 10, resume=run)))


def judge_sharply(pictures: torch.Tensor) -> dict:
    """What the judges still see, how sharp the pictures are, and the first of them."""
    return {**judge(pictures, len(pictures) // 4), "sharpness": round(sharpness(pictures), 4),
            "pictures": strip(pictures[:SHOWN])}


def true_row(plan: Plan) -> dict:
    """The ceiling."""
    return judge_sharply(held_out(plan.judged)[1])


@torch.no_grad()
def measure(model: VQVAE, decoder: nn.Module, own: PictureNet, plan: Plan) -> dict:
    """PSNR, what the judges still see, and Frechet distances to the same scenes' true pictures: in the
    judge's features, and in those of the loss's `own` classifier."""
    truth = held_out(plan.judged)[1]
    pictures = torch.cat([(decoder(codes_of(model, x)) + 0.5).clamp(0, 1) for x in truth.split(32)])
    nets = {"fd_same": checkpoints.load("picture_judge"), "fd_same_own": own}
    return {"psnr_db": round(pooled_psnr(pictures, truth), 2), **judge_sharply(pictures),
            **{name: round(frechet_distance(net.features(pictures), net.features(truth)), 4)
               for name, net in nets.items()}}


def before(plan: Plan) -> dict:
    """The decoder from which all four go on."""
    model, history = first_model(plan)
    return {**measure(model, model.decoder, own_net(plan)[0], plan), "cpu_minutes": round(history.cpu_minutes, 2)}


def row(plan: Plan, name: str) -> dict:
    """One of the four: a copy of the decoder, trained on."""
    model, (net, _) = first_model(plan)[0], own_net(plan)
    decoder, (strength, adversarial) = copy.deepcopy(model.decoder), ways(plan)[name]
    draw = batch_of(BATCH)

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        images, = draw(rng)
        return codes_of(model, images), images
    history = finished(train(decoder, batch, PerceptualLoss(Perceptual(net), strength, adversarial, plan.seed),
                             steps=plan.steps, optim=Optim(lr=LR), run=Run(seed=plan.seed + 1, progress=False)))
    return {**measure(model, decoder, net, plan), "cpu_minutes": round(history.cpu_minutes, 2),
            "critic": [round(v, 2) for v in history.column("critic")]}


def further_row(plan: Plan, name: str) -> dict:
    """The same with everything of another seed: the tokenizer, the classifier, the four decoders."""
    found = row(plan, name)
    return {key: found[key] for key in KEPT if key in found}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """The ceiling, the start, and the four decoders; then the four with further seeds."""
    out = [Job("true pictures", partial(true_row, plan), section=()),
           Job("before", partial(before, plan), section=()),
           Job("net", lambda: {"cpu_minutes": round(own_net(plan)[1].cpu_minutes, 2)}, section=()),
           *(Job(name, partial(row, plan, name), section=("ways",), seed=plan.seed) for name in ways(plan))]
    return out + [Job(name, partial(further_row, replace(plan, seed=seed), name), section=("more seeds", name),
                      key=str(seed), seed=seed) for seed in seeds if seed != plan.seed for name in ways(plan)]


STUDY = Study("ch03_gan", Plan(), Plan(first_steps=1, net_steps=1, steps=1, judged=100), jobs, seeds=(0, 1, 2))
main = STUDY.run
