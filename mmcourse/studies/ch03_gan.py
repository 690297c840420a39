"""What a perceptual and an adversarial loss add: `python -m mmcourse study ch03_gan`, about five CPU minutes.

A small VQ-VAE is trained with squared error. Then its tokens are left as they are, and its decoder goes on learning four
times from the same weights, on the same pictures, for the same number of steps: with squared error alone (the control), with
a perceptual loss, with a critic, with both, which is VQ-GAN (Esser et al. 2021). The perceptual loss has a classifier of its
own: what measures the pictures must not be what they were trained to please. Writes `data/results/ch03_gan.json`.
"""
import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse import checkpoints
from mmcourse.judges.picture_net import PictureNet, frechet_distance, picture_loss
from mmcourse.optim import Optim
from mmcourse.paths import RESULTS
from mmcourse.recipes import picture_judge
from mmcourse.recipes.decoder import sharpness
from mmcourse.studies.ch03_sweep import JUDGED, SHOWN, batch, held_out, judge, letter_loss, save, strip
from mmcourse.training import History, Run, train
from mmcourse.vqvae import VQVAE

FIRST_STEPS, NET_STEPS, STEPS, LR, MUON_LR, WIDTH = 800, 500, 500, 1e-3, 0.04, 64
PERCEPTUAL, ADVERSARIAL, CRITIC_LR = 1.0, 0.5, 2e-3
WAYS = {"squared error": (0.0, 0.0), "+ perceptual": (PERCEPTUAL, 0.0), "+ critic": (0.0, ADVERSARIAL),
        "+ both (VQ-GAN)": (PERCEPTUAL, ADVERSARIAL)}
FILE = RESULTS / "ch03_gan.json"


class Perceptual(nn.Module):
    """How differently a classifier sees two batches of pictures: the squared difference of its features at three depths, each
    place's features at length 1 (Zhang et al. 2018, without their fitted weights)."""

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
    """True or painted? One answer for each of 16x16 places, of which each sees 18x18 pixels: (B, 3, 64, 64) -> (B, 1, 16, 16)
    (PatchGAN, Isola et al. 2017)."""

    def __init__(self, width: int = 32):
        super().__init__(nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
                         nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
                         nn.Conv2d(2 * width, 1, 3, padding=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """True pictures above 0, painted ones below. Around 0, as [0, 1] is not, it learns several times as fast."""
        return super().forward(images * 2 - 1)


class PerceptualLoss:
    """Squared error, plus a perceptual part, plus what the critic says; the critic learns one step in each call.

    The critic's part is scaled so that its gradient at the last layer is `adversarial` times that of all the rest (Esser et al.
    2021): else one of the two would drown the other.
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
            ours, theirs = (torch.autograd.grad(part, last, retain_graph=True)[0].norm() for part in (loss, fooled))
            loss = loss + self.adversarial * (ours / theirs.clamp(min=1e-6)).clamp(max=1e3) * fooled
        return {"loss": loss, **out}

    def teach_the_critic(self, painted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """One step of the hinge loss: true pictures above 1, painted ones below -1. 2: it is at a loss; 0: it is never wrong."""
        with torch.enable_grad():
            loss = F.relu(1 - self.critic(truth)).mean() + F.relu(1 + self.critic(painted)).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return loss.detach()


@torch.no_grad()
def codes_of(model: VQVAE, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, 64, 64) -> the vectors of their codes (B, D, 8, 8), in evaluation: the codebook stays as it is."""
    return model.quantizer.codebook[model.encode(images)].permute(0, 3, 1, 2)


@torch.no_grad()
def measure(model: VQVAE, own: PictureNet) -> dict:
    """Errors, what the judges still see, two Frechet distances to the same scenes' true pictures, and how sharp it is."""
    truth = held_out()[1][:JUDGED]
    pictures = torch.cat([model.decode(model.encode(x)) for x in truth.split(32)])
    net = checkpoints.load("picture_judge")
    same = {"fd_same": net, "fd_same_own": own}
    return {"psnr_db": round(-10 * (pictures - truth).square().mean().log10().item(), 2), **judge(pictures),
            **{name: round(frechet_distance(n.features(pictures), n.features(truth)), 4) for name, n in same.items()},
            "sharpness": round(sharpness(pictures), 4), "pictures": strip(pictures[:SHOWN])}


def first_model(seed: int, steps: int) -> tuple[VQVAE, History]:
    """A small tokenizer of squared error alone."""
    torch.manual_seed(seed)
    model = VQVAE(width=WIDTH)
    return model, train(model, batch, letter_loss, steps=steps,
                        optim=Optim("muon", lr=3e-3, muon_lr=MUON_LR), run=Run(seed=seed, progress=False))


def main(argv: list[str] | None = None) -> dict:
    """Train the four decoders, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m mmcourse.studies.ch03_gan")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    model, history = first_model(args.seed, FIRST_STEPS)
    torch.manual_seed(args.seed + 10)
    own = PictureNet(32)
    net_history = train(own, picture_judge.batch, picture_loss, steps=NET_STEPS, optim=Optim(lr=2e-3),
                        run=Run(seed=args.seed + 10, progress=False))
    truth = held_out()[1][:JUDGED]
    result = {"plan": {"first_steps": FIRST_STEPS, "net_steps": NET_STEPS, "steps": args.steps, "seed": args.seed,
                       "judged": JUDGED, "perceptual": PERCEPTUAL, "adversarial": ADVERSARIAL},
              "true pictures": {**judge(truth), "sharpness": round(sharpness(truth), 4), "pictures": strip(truth[:SHOWN])},
              "before": {**measure(model, own), "cpu_minutes": round(history.cpu_minutes, 2)},
              "net": {"cpu_minutes": round(net_history.cpu_minutes, 2)}, "ways": {}}
    before = {k: v.clone() for k, v in model.decoder.state_dict().items()}

    def codes_and_pictures(rng: np.random.Generator):
        images, = batch(rng)
        return codes_of(model, images), images

    for name, (strength, adversarial) in WAYS.items():
        model.decoder.load_state_dict(before)
        loss = PerceptualLoss(Perceptual(own), strength, adversarial, args.seed)
        history = train(model.decoder, codes_and_pictures, loss, steps=args.steps, optim=Optim(lr=LR),
                        run=Run(seed=args.seed + 1, progress=False))
        model.eval()
        result["ways"][name] = {**measure(model, own), "cpu_minutes": round(history.cpu_minutes, 2),
                                "critic": [round(v, 2) for v in history.column("critic")]}
        print(name, {k: v for k, v in result["ways"][name].items() if k != "pictures"}, flush=True)
    save(result, FILE)
    return result


if __name__ == "__main__":
    main()
