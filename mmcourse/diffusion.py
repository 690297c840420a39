"""The diffusion decoder: image tokens -> pixels, by flow matching from the plain picture to the true one.

Sources: Lipman et al. 2022 and Liu et al. 2022 (flow matching, rectified flow), Ronneberger et al. 2015
(U-Net), Karras et al. 2022 (Heun's sampler), Li and He 2025 (let the network predict the clean picture, not
the noise).
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.checks import MOST_STEPS, check_seed, check_whole
from mmcourse.distributed import rows
from mmcourse.vqvae import VQVAE, ChannelNorm, check_image_ids


def interpolate(data: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The straight path from noise (t = 0) to data (t = 1): shapes (B, ...), (B, ...), (B,) -> (B, ...)."""
    t = t.view(-1, *[1] * (data.ndim - 1))                             # (B,) -> (B, 1, ...)
    return t * data + (1 - t) * noise


def flow_loss(model: nn.Module, data: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
    """Flow matching for a model that predicts the data: `model(x, t, *condition)` -> the shape of `data`.

    The velocity at x is (data - x) / (1 - t), so an error of the prediction counts 1 / (1 - t) times. It is
    held below 4: near t = 1 there is hardly any noise left, and nothing to learn.
    """
    t, noise = torch.rand(len(data), device=data.device), torch.randn_like(data)
    error = model(interpolate(data, noise, t), t, *condition) - data
    return (error / (1 - t).clamp(min=0.25).view(-1, *[1] * (data.ndim - 1))).square().mean()


def velocity_of(model: nn.Module, *condition: torch.Tensor):
    """The velocity field v(x, t) of a model that predicts the data: from x straight to where it
    expects the end."""
    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        return (model(x, torch.full((len(x),), t, device=x.device), *condition) - x) / (1 - t)
    return velocity


def euler(velocity, x: torch.Tensor, steps: int) -> list[torch.Tensor]:
    """Follow `velocity(x, t)` from t = 0 to 1 in equal straight steps; returns the `steps` + 1 states."""
    states = [x]
    for i in range(steps):
        states.append(states[-1] + velocity(states[-1], i / steps) / steps)
    return states


def heun(velocity, x: torch.Tensor, steps: int) -> list[torch.Tensor]:
    """As `euler`, but each step uses the mean of the velocities at its two ends. The last step, which ends
    where the velocity is not defined, is Euler's. 2 `steps` - 1 calls of `velocity`."""
    states = [x]
    for i in range(steps):
        first = velocity(states[-1], i / steps)
        ahead = states[-1] + first / steps
        if i + 1 < steps:
            ahead = states[-1] + (first + velocity(ahead, (i + 1) / steps)) / (2 * steps)
        states.append(ahead)
    return states


SAMPLERS = {"euler": euler, "heun": heun}


def time_features(t: torch.Tensor, dim: int = 64) -> torch.Tensor:
    """Sines and cosines of t at `dim` / 2 frequencies: (B,) -> (B, dim). A network cannot read one
    bare number well."""
    angles = t[:, None] * torch.exp(torch.linspace(0, math.log(200), dim // 2, device=t.device))
    return torch.cat([angles.sin(), angles.cos()], 1)


class TimeConditionedBlock2d(nn.Module):
    """A residual block that knows the time, which scales and shifts its normalised input:
    (B, C, H, W), (B, T) -> same."""

    def __init__(self, channels: int, time: int):
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.film = nn.Linear(time, 2 * channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(time)[:, :, None, None].chunk(2, 1)   # (B, C, 1, 1) each
        h = F.silu(self.norm(x) * (1 + scale) + shift)
        return x + self.conv2(F.silu(self.conv1(h)))


class FlowDecoder(nn.Module):
    """A small U-Net that turns noise into what the plain decoder's picture lacks, told that
    picture and the codes.

    The flow runs on the plain decoder's error divided by `residual_std`: the first state of the picture is
    the plain picture with that much noise on it, enough to hide an outline, so that each is decided as a
    whole and not pixel by pixel. All work is done on 16x16 and 8x8 grids: 4x4 pixels of the plain picture are
    one position. With `scale` 2 the picture is painted twice as large, so that 8x8 of its pixels are one.
    """

    def __init__(self, code_dim: int = 16, width: int = 64, depth: int = 2, time: int = 128,
                 residual_std: float = 0.15, scale: int = 1):
        super().__init__()
        self.config = {"code_dim": code_dim, "width": width, "depth": depth, "time": time,
                       "residual_std": residual_std, "scale": scale}
        self.residual_std, self.scale = residual_std, scale
        self.time = nn.Sequential(nn.Linear(64, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.conv_in = nn.Conv2d(48 * scale**2 + 48, width, 3, padding=1)
        self.down = nn.ModuleList(TimeConditionedBlock2d(width, time) for _ in range(depth))
        self.downsample = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.codes = nn.Conv2d(code_dim, 2 * width, 1)
        self.middle = nn.ModuleList(TimeConditionedBlock2d(2 * width, time) for _ in range(depth + 1))
        self.upsample = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1), nn.PixelShuffle(2))
        self.skip = nn.Conv2d(2 * width, width, 1)
        self.up = nn.ModuleList(TimeConditionedBlock2d(width, time) for _ in range(depth))
        self.conv_out = nn.Sequential(ChannelNorm(width), nn.SiLU(),
                                      nn.Conv2d(width, 48 * scale**2, 3, padding=1))
        nn.init.zeros_(self.conv_out[-1].weight)  # it begins as the plain decoder: no correction
        nn.init.zeros_(self.conv_out[-1].bias)

    def forward(self, x: torch.Tensor, t: torch.Tensor, plain: torch.Tensor,
                codes: torch.Tensor) -> torch.Tensor:
        """Noisy error (B, 3, sH, sW), s being the model's `scale`, time (B,), plain picture
        (B, 3, H, W), code vectors (B, D, H/8, W/8) -> clean error like the noisy one."""
        time = self.time(time_features(t))
        noisy = F.pixel_unshuffle(x, 4 * self.scale)  # (B, 3, sH, sW) -> (B, 48 s^2, H/4, W/4)
        seen = F.pixel_unshuffle(plain * 2 - 1, 4)                     # (B, 3, H, W) -> (B, 48, H/4, W/4)
        h = self.conv_in(torch.cat([noisy, seen], 1).contiguous(memory_format=torch.channels_last))
        for block in self.down:
            h = block(h, time)
        fine, h = h, self.downsample(h) + self.codes(codes)  # (B, C, H/4, W/4), (B, 2C, H/8, W/8)
        for block in self.middle:
            h = block(h, time)
        h = self.skip(torch.cat([fine, self.upsample(h)], 1))
        for block in self.up:
            h = block(h, time)
        return F.pixel_shuffle(self.conv_out(h), 4 * self.scale)  # (B, 48 s^2, H/4, W/4) -> (B, 3, sH, sW)

    def decode(self, ids: torch.Tensor, vqvae: VQVAE, steps: int = 8, seed: int = 0,
               sampler: str = "euler") -> torch.Tensor:
        """Image tokens (B, h, w) int64 -> pictures (B, 3, 8sh, 8sw) in [0, 1]: the last of
        `paint_flow`'s states."""
        return paint_flow(self, ids, vqvae, steps, seed, sampler)[-1]


@torch.no_grad()
def paint_flow(model: FlowDecoder, ids: torch.Tensor, vqvae: VQVAE, steps: int = 8, seed: int = 0,
               sampler: str = "euler") -> list[torch.Tensor]:
    """Image tokens (B, h, w) int64 -> the `steps` + 1 states on the way from the plain picture with noise on
    it to the finished one, pictures (B, 3, 8sh, 8sw) in [0, 1]; the same ids and seed give the same pictures.

    Args:
        vqvae: the tokenizer that made the ids.
        sampler: `euler` (`steps` calls of the network) or `heun` (2 `steps` - 1).
    """
    check_sampling(steps, sampler)
    check_seed(seed, optional=False)
    plain, codes = plain_and_codes(vqvae, ids)
    check_codes(codes, model.config["code_dim"])
    large = enlarge(plain, model.scale)
    noise = torch.randn(large.shape, generator=torch.Generator().manual_seed(int(seed))).to(large)
    states = SAMPLERS[sampler](velocity_of(model, plain, codes), noise, steps)
    return [(large + model.residual_std * state).clamp(0, 1) for state in states]


def decoder_loss(model: FlowDecoder, images: torch.Tensor, plain: torch.Tensor,
                 codes: torch.Tensor) -> torch.Tensor:
    """Flow matching whose data is what the plain picture, enlarged, got wrong, in units of the
    model's `residual_std`."""
    return flow_loss(model, (images - enlarge(plain, model.scale)) / model.residual_std, plain, codes)


decoder_loss.mean_over = rows


def enlarge(pictures: torch.Tensor, scale: int) -> torch.Tensor:
    """Pictures (B, 3, H, W) made `scale` times as large without knowing anything: bicubic, in [0, 1]."""
    if scale == 1:
        return pictures
    return F.interpolate(pictures, scale_factor=scale, mode="bicubic", align_corners=False).clamp(0, 1)


@torch.no_grad()
def plain_and_codes(vqvae: VQVAE, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the flow is told: the plain decoder's pictures (B, 3, 8h, 8w) and the code vectors (B, D, h, w)
    of ids (B, h, w)."""
    check_image_ids(ids, vqvae.vocab_size)
    plain = vqvae.decode(ids)
    return plain, vqvae.quantizer.codebook[ids.long()].permute(0, 3, 1, 2)  # (B, h, w, D) -> (B, D, h, w)


def check_sampling(steps: int, sampler: str = "euler") -> None:
    """ValueError for a number of steps or a sampler that is none."""
    check_whole(steps, "steps", MOST_STEPS, "; 8 is a good choice")
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler is {' or '.join(map(repr, SAMPLERS))}, got {sampler!r}")


def check_codes(codes: torch.Tensor, code_dim: int) -> None:
    """ValueError if the code vectors (B, D, ...) are none, or not of the tokenizer that a decoder
    was trained with."""
    if not len(codes):
        raise ValueError("there is nothing to decode: ids have the shape (B, ...) with B of 1 or more")
    if codes.shape[1] != code_dim:
        raise ValueError(f"this decoder knows codes of {code_dim} numbers, the tokenizer's have "
                         f"{codes.shape[1]}: give the tokenizer that it was trained with")
