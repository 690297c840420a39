"""A picture as a row of tokens of which every beginning is a picture already.

Sources: tokens of a whole picture instead of a grid, Yu et al. 2024 (TiTok); dropping the tail, Rippel et al. 2014
(nested dropout), Bachmann et al. 2025 (FlexTok); FSQ, Mentzer et al. 2023.
"""
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.checks import check_ids, check_whole
from mmcourse.painters import from_patches, to_patches
from mmcourse.quantize import FSQ
from mmcourse.transformer import Block
from mmcourse.vqvae import RECONSTRUCTION_WEIGHT


class NestedTokenizer(nn.Module):
    """Pictures of `side` x `side` patches <-> `tokens` ids. Registers, which belong to no place, read all patches;
    what each has gathered becomes a token. The decoder looks at those that are there.

    A patch is `patch` x `patch` pixels; `levels`: of the FSQ.
    """

    def __init__(self, tokens: int = 12, levels: tuple[int, ...] = (8, 8, 8), side: int = 3, patch: int = 16,
                 width: int = 96, layers: int = 3, heads: int = 4):
        super().__init__()
        self.config = {"tokens": tokens, "levels": tuple(levels), "side": side, "patch": patch, "width": width,
                       "layers": layers, "heads": heads}
        self.tokens, self.side, self.patch, self.places = tokens, side, patch, side * side
        self.quantizer, dim = FSQ(levels), 3 * patch * patch
        self.patch_embed, self.code_embed = nn.Linear(dim, width), nn.Linear(len(levels), width)
        self.encoder_position_embed = nn.Parameter(0.5 * torch.randn(self.places + tokens, width))
        self.decoder_position_embed = nn.Parameter(0.5 * torch.randn(self.places + tokens, width))
        self.missing_embed = nn.Parameter(torch.zeros(width))
        self.encoder = nn.Sequential(*(Block(width, heads, causal=False) for _ in range(layers)))
        self.decoder = nn.Sequential(*(Block(width, heads, causal=False) for _ in range(layers)))
        self.to_code = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(levels)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        return self.quantizer.codebook_size

    def codes(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches (B, N, D) -> quantized vectors (B, tokens, levels) and ids (B, tokens)."""
        x = self.patch_embed(patches)
        registers = x.new_zeros(len(x), self.tokens, x.shape[2])
        x = torch.cat([x, registers], 1) + self.encoder_position_embed               # (B, N + tokens, C)
        z = self.to_code(self.encoder(x)[:, self.places:])
        quantized, ids, _ = self.quantizer(z.flatten(0, 1))
        return quantized.view(z.shape), ids.view(z.shape[:2])

    def rebuild(self, codes: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Quantized vectors (B, tokens, levels), and which of them the decoder may see (B, tokens) bool -> patches
        (B, N, D)."""
        x = torch.where(kept[..., None], self.code_embed(codes), self.missing_embed)
        empty = x.new_zeros(len(x), self.places, x.shape[2])
        x = torch.cat([empty, x], 1) + self.decoder_position_embed                   # (B, N + tokens, C)
        return self.head(self.decoder(x)[:, :self.places])

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> ids (B, tokens) int64."""
        check_size(images, self.side * self.patch)
        return self.codes(to_patches(images, self.patch))[1]

    @torch.no_grad()
    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """The first k ids (B, k), k from 1 to `tokens` -> pictures (B, 3, H, W) in [0, 1]."""
        check_prefix(ids, self.tokens, self.vocab_size)
        codes = self.quantizer.codebook[F.pad(ids.long(), (0, self.tokens - ids.shape[1]))]
        kept = first(torch.full((len(ids),), ids.shape[1], device=codes.device), self.tokens)
        return from_patches(self.rebuild(codes, kept), self.side, self.patch)


def first(lengths: torch.Tensor, tokens: int) -> torch.Tensor:
    """Which tokens are kept if each row keeps so many of the first: (B,) -> (B, tokens) bool."""
    return torch.arange(tokens, device=lengths.device) < lengths[:, None]


def nested_loss(model: NestedTokenizer, patches: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Weighted squared error of the patches (B, N, D) in [-1, 1], rebuilt from the tokens that were kept
    (B, tokens)."""
    codes, _ = model.codes(patches)
    return RECONSTRUCTION_WEIGHT * (model.rebuild(codes, kept) - patches).square().mean()


def check_size(images: torch.Tensor, size: int) -> None:
    """ValueError for what is not a batch of pictures of this size."""
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or images.shape[1:] != (3, size, size):
        raise ValueError(f"pictures for this tokenizer are a tensor of shape (B, 3, {size}, {size}), got "
                         f"{tuple(getattr(images, 'shape', ())) or type(images).__name__}")


def check_prefix(ids: torch.Tensor, tokens: int, vocab_size: int) -> None:
    """Clear errors for what is not a batch of beginnings, `tokens` ids at most."""
    check_ids(ids, vocab_size, ("B", "k"), "ids of a beginning")
    check_whole(ids.shape[1], "the number of tokens", tokens)
