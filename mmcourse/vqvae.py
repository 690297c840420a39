"""Image <-> 64 integers: a convolutional autoencoder with a vector quantizer in the middle.

Source: VQ-VAE (van den Oord et al. 2017).
"""
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.checks import check_ids
from mmcourse.distributed import rows
from mmcourse.quantize import VectorQuantizer, nearest_code


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each position.

    Unlike GroupNorm it lets no position see what is in the others.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x):
        x = self.norm(x.permute(0, 2, 3, 1))                  # (B, C, H, W) -> (B, H, W, C)
        return x.permute(0, 3, 1, 2)                          # (B, H, W, C) -> (B, C, H, W)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, SiLU, 1x1 convolution, added to x: (B, C, H, W) -> same.

    With `kernel` 1 a position sees no neighbours.
    """

    def __init__(self, channels: int, kernel: int = 3):
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


def border_colour(images: torch.Tensor) -> torch.Tensor:
    """The background's colour, the median of the border: (B, 3, H, W) -> (B, 3, 1, 1)."""
    rows, columns = images[:, :, [0, -1]], images[:, :, :, [0, -1]]
    border = torch.cat([rows.flatten(2), columns.flatten(2)], 2)       # (B, 3, 2H + 2W)
    return border.median(2).values[:, :, None, None]


def matte(images: torch.Tensor, patch: int = 8, softness: float = 0.05) -> torch.Tensor:
    """Pixels of the background's colour turn grey, unless a whole patch is background.

    So a cat's ear has the same code on every background, and the empty patches say which
    background it is: (B, 3, H, W) -> same.
    """
    difference = (images - border_colour(images)).abs().amax(1, keepdim=True)
    alpha = (difference / softness).clamp(max=1)
    empty = F.interpolate((F.max_pool2d(alpha, patch) < 0.5).float(), scale_factor=patch)
    alpha = torch.maximum(alpha, empty)
    return alpha * images + (1 - alpha) * 0.5


class GlobalContext(nn.Module):
    """Tells every place what there is anywhere in the picture: (B, C, H, W) -> same."""

    def __init__(self, channels: int):
        super().__init__()
        self.mix = nn.Linear(2 * channels, channels)

    def forward(self, x):
        summary = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)       # (B, 2C)
        return x + self.mix(summary)[:, :, None, None]


def make_encoder(width: int, dim: int, context: int) -> nn.Sequential:
    """(B, 3, 64, 64) -> (B, dim, 8, 8). All heavy work is done on the small grids.

    `context` 0: a token sees its own patch alone; 1: 4 pixels more; 3: its neighbours too.
    """
    first, then = 3 if context else 1, max(context, 1)                 # the blocks' kernels
    return nn.Sequential(
        nn.Conv2d(3, width // 2, 4, stride=4),                         # (B, 64, 16, 16)
        ResidualBlock(width // 2, first),
        nn.Conv2d(width // 2, width, 2, stride=2),                     # (B, 128, 8, 8)
        ResidualBlock(width, then), ResidualBlock(width, then),
        ChannelNorm(width), nn.SiLU(), nn.Conv2d(width, dim, 1))


def make_decoder(width: int, dim: int) -> nn.Sequential:
    """(B, dim, 8, 8) -> (B, 3, 64, 64)."""
    return nn.Sequential(
        nn.Conv2d(dim, width, 3, padding=1), GlobalContext(width),
        ResidualBlock(width), ResidualBlock(width), ResidualBlock(width),
        nn.Conv2d(width, 2 * width, 1), nn.PixelShuffle(2),            # (B, 64, 16, 16)
        ResidualBlock(width // 2), ResidualBlock(width // 2),
        ChannelNorm(width // 2), nn.SiLU(),
        nn.Conv2d(width // 2, 3 * 16, 3, padding=1), nn.PixelShuffle(4))


class VQVAE(nn.Module):
    """The image tokenizer: 64x64 pixels <-> 8x8 tokens out of `codebook_size`."""

    def __init__(self, codebook_size: int = 512, dim: int = 16, width: int = 128,
                 context: int = 1):
        super().__init__()
        self.config = dict(codebook_size=codebook_size, dim=dim, width=width,
                           context=context)
        self.encoder = make_encoder(width, dim, context)
        self.quantizer = VectorQuantizer(codebook_size, dim)
        self.decoder = make_decoder(width, dim)

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        return self.quantizer.codebook_size

    def vectors(self, images: torch.Tensor) -> torch.Tensor:
        """What is quantized: (B, 3, H, W) in [0, 1] -> (B, H/8, W/8, D)."""
        z = self.encoder(matte(images) * 2 - 1)
        return z.permute(0, 2, 3, 1)                          # (B, D, h, w) -> (B, h, w, D)

    def forward(self, images: torch.Tensor):
        """(B, 3, 64, 64) in [0, 1] -> the same rebuilt, indices (B, 8, 8), commitment."""
        z = self.vectors(images)                                        # (B, h, w, D)
        quantized, indices, commitment = self.quantizer(z.flatten(0, 2))
        q = quantized.view(z.shape).permute(0, 3, 1, 2)         # (B h w, D) -> (B, D, h, w)
        return self.decoder(q) + 0.5, indices.view(z.shape[:3]), commitment

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float in [0, 1], H and W multiples of 8 -> (B, H/8, W/8) int64."""
        check_images(images)
        z = self.vectors(images.float())
        return nearest_code(z.flatten(0, 2), self.quantizer.codebook).view(z.shape[:3])

    @torch.no_grad()
    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, h, w) int64 -> (B, 3, 8h, 8w) float in [0, 1]."""
        check_image_ids(ids, self.vocab_size)
        q = self.quantizer.codebook[ids.long()]                         # (B, h, w, D)
        return (self.decoder(q.permute(0, 3, 1, 2)) + 0.5).clamp(0, 1)


def check_image_ids(ids: torch.Tensor, vocab_size: int) -> None:
    """Clear errors for what is not a batch of image ids (`check_ids`)."""
    check_ids(ids, vocab_size, ("B", "h", "w"), "image ids")


def check_images(images: torch.Tensor) -> None:
    """Clear errors for what is not a batch of pictures."""
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or images.shape[1] != 3:
        shape = tuple(getattr(images, "shape", ())) or type(images).__name__
        hint = ""
        if len(shape) == 4 and shape[-1] == 3:
            hint = "; the channels are last: use .permute(0, 3, 1, 2)"
        elif len(shape) == 4 and shape[1] in (1, 4):
            hint = ("; grey has one channel: use .expand(-1, 3, -1, -1)" if shape[1] == 1 else
                    "; the fourth channel is alpha: leave it out with [:, :3], or lay the picture on a "
                    "background first")
        elif len(shape) == 3:
            hint = "; one picture alone is a batch of one: use [None]"
        raise ValueError(f"pictures are a tensor of shape (B, 3, H, W), got {shape}{hint}")
    if images.is_meta or images.layout != torch.strided:
        raise ValueError("pictures are an ordinary tensor that holds its pixels, not a meta or sparse one")
    if not images.is_floating_point():
        raise TypeError(f"pictures are floats in [0, 1], got {images.dtype}; divide uint8 pixels by 255")
    if images.shape[2] % 8 or images.shape[3] % 8 or not images.shape[2] or not images.shape[3]:
        raise ValueError(f"height and width must be multiples of 8, got {images.shape[2]}x{images.shape[3]}: "
                         "resize or pad")
    if not torch.isfinite(images).all():
        raise ValueError("the picture holds NaN or infinite values")
    if images.numel() and (images.min() < -1e-3 or images.max() > 1 + 1e-3):
        signed = images.min() < 0 and -1.01 < images.min() and images.max() < 1.01
        raise ValueError(f"pixels must lie in [0, 1], got {images.min():.5g}..{images.max():.5g}"
                         + ("; they look like [-1, 1]: use (x + 1) / 2" if signed else ""))


RECONSTRUCTION_WEIGHT = 10.0       # squared errors of pixels are small beside the commitment


def vqvae_loss(model: VQVAE, images: torch.Tensor, weights: torch.Tensor | float = 1.0):
    """Reconstruction error plus commitment; also PSNR in dB and the codes' perplexity.

    `weights`, broadcast over (B, 3, H, W), say how much each pixel counts.
    """
    reconstruction, indices, commitment = model(images)
    squares = (reconstruction - images).square()
    use = torch.bincount(indices.flatten(), minlength=model.vocab_size).float()
    p = use[use > 0] / use.sum()
    return {"loss": RECONSTRUCTION_WEIGHT * (weights * squares).mean() + commitment,
            "psnr": -10 * squares.detach().mean().log10(),
            "perplexity": (-(p * p.log()).sum()).exp()}


vqvae_loss.mean_over = rows
