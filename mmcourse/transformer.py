"""The one model: a causal transformer over the one vocabulary, with a KV cache. It never asks which kind a token is.

Sources: Vaswani et al. 2017; pre-norm and initialisation as GPT-2 (Radford et al. 2019); squared ReLU (So et al. 2021).
"""
import math

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Causal self-attention with several heads: (B, T, C) -> (B, T, C)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, cache=None):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)    # (B, heads, T, C / heads)
        if cache is not None:
            k, v = cache.append(k, v)                                          # (B, heads, past + T, C / heads)
        causal = k.shape[2] == T                                               # with a past, new tokens come one by one
        if not causal and T > 1:
            past = k.shape[2] - T
            mask = torch.ones(T, k.shape[2], dtype=torch.bool, device=x.device).tril(past)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=causal and T > 1)
        return self.out(y.transpose(1, 2).reshape(B, T, C))                    # (B, heads, T, C / heads) -> (B, T, C)


class SquaredReLU(torch.autograd.Function):
    """max(x, 0)^2 with its gradient by hand, 2 max(x, 0): fewer passes over large tensors than autograd makes."""

    @staticmethod
    def forward(ctx, x):
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx, gradient):
        positive, = ctx.saved_tensors
        return torch.addcmul(gradient.new_zeros(()), gradient, positive, value=2)      # 0 + 2 * gradient * positive


class MLP(nn.Module):
    """Widen four times, squared ReLU, back again: (B, T, C) -> (B, T, C)."""

    def __init__(self, width: int):
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        return self.down(SquaredReLU.apply(self.up(x)))


class Block(nn.Module):
    """Attention moves information between tokens, the MLP works on each alone; both add to the residual stream."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), MLP(width)

    def forward(self, x, cache=None):
        x = x + self.attention(self.norm1(x), cache)
        return x + self.mlp(self.norm2(x))


class LayerCache:
    """Keys and values of one layer, for tokens that were seen already. Memory is taken once, for `length` tokens.

    They lie where `like` lies (CPU or GPU), in its precision.
    """

    def __init__(self, batch: int, heads: int, length: int, dim: int, like: torch.Tensor):
        self.keys, self.values = (like.new_empty(batch, heads, length, dim) for _ in range(2))
        self.filled = 0

    def append(self, k, v):
        end = self.filled + k.shape[2]
        self.keys[:, :, self.filled:end], self.values[:, :, self.filled:end] = k, v
        self.filled = end
        return self.keys[:, :, :end], self.values[:, :, :end]


def segment_positions(ids: torch.Tensor, openers: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each token stands: (B, T) -> its offset in its segment (B, T) and its segment's number (B, T).

    A segment starts at an opening boundary token, so image token 5 stands at offset 6, whatever came before the picture.
    """
    opens = torch.isin(ids, torch.tensor(openers, device=ids.device)) if openers else torch.zeros_like(ids).bool()
    steps = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    last_open = torch.where(opens, steps, 0).cummax(1).values
    return steps - last_open, opens.cumsum(1)


class Transformer(nn.Module):
    """Next-token prediction over ids (B, T): logits (B, T, vocab).

    Args:
        vocab_size: ids lie in 0..vocab_size-1.
        context: the longest sequence.
        openers: ids that start a segment; positions are counted from there. Empty: plain positions.
        segments: how many segments a sequence may have.
    """

    def __init__(self, vocab_size: int, width: int = 192, layers: int = 6, heads: int = 6, context: int = 256,
                 openers: tuple[int, ...] = (), segments: int = 16):
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        self.config = {"vocab_size": vocab_size, "width": width, "layers": layers, "heads": heads, "context": context,
                       "openers": list(openers), "segments": segments}
        self.vocab_size, self.context, self.openers, self.segments = vocab_size, context, tuple(openers), segments
        self.heads, self.width = heads, width
        self.token_embed = nn.Embedding(vocab_size, width)
        self.offset_embed = nn.Embedding(context, width)
        self.segment_embed = nn.Embedding(segments + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self.apply(self._init)
        for block in self.blocks:                      # the residual stream sums 2 x layers terms: keep its size near 1
            for layer in (block.attention.out, block.mlp.down):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * layers))

    @staticmethod
    def _init(module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)

    def hidden(self, ids: torch.Tensor, cache: "KVCache | None" = None) -> torch.Tensor:
        """(B, T) int64 -> the residual stream after the last block, normed: (B, T, C)."""
        if ids.ndim != 2 or ids.shape[1] == 0:
            raise ValueError(f"ids have shape (B, T) with at least one token, got {tuple(ids.shape)}")
        B, T = ids.shape
        past = cache.length if cache is not None else 0
        if past + T > self.context:
            raise ValueError(f"{past + T} tokens do not fit the context of {self.context}: shorten the prompt")
        offsets, numbers = segment_positions(ids, self.openers) if cache is None else cache.positions(ids, self.openers)
        try:
            x = self.token_embed(ids) + self.offset_embed(offsets) + self.segment_embed(numbers.clamp(max=self.segments))
        except IndexError:
            raise ValueError(f"ids lie in 0..{self.vocab_size - 1}, got {int(ids.min())}..{int(ids.max())}") from None
        for i, block in enumerate(self.blocks):
            x = block(x, cache.layers[i] if cache is not None else None)
        return self.norm(x)

    def forward(self, ids: torch.Tensor, cache: "KVCache | None" = None) -> torch.Tensor:
        """(B, T) int64 -> logits (B, T, vocab). With a cache, `ids` are the new tokens after those it holds."""
        return self.head(self.hidden(ids, cache))

    @property
    def device(self) -> torch.device:
        return self.token_embed.weight.device

    def new_cache(self, batch: int) -> "KVCache":
        """An empty cache for sequences of up to `context` tokens."""
        return KVCache(self, batch)


class KVCache:
    """What generation need not compute twice: keys and values of every layer, and where the last token stood."""

    def __init__(self, model: Transformer, batch: int):
        weight, dim = model.token_embed.weight, model.width // model.heads
        self.layers = [LayerCache(batch, model.heads, model.context, dim, weight) for _ in model.blocks]
        self.offset = torch.full((batch, 1), -1, device=model.device)          # -1: the first token will stand at 0
        self.number = torch.zeros_like(self.offset)

    @property
    def length(self) -> int:
        return self.layers[0].filled

    def positions(self, ids, openers):
        """The positions of the new tokens (B, T), counted on from those that were seen."""
        offsets, numbers = segment_positions(ids, openers)
        offsets = torch.where(numbers == 0, offsets + self.offset + 1, offsets)            # no segment has opened yet
        numbers = numbers + self.number
        self.offset, self.number = offsets[:, -1:], numbers[:, -1:]
        return offsets, numbers


def next_token_loss(model, ids: torch.Tensor, weights: torch.Tensor | None = None, pad: int = 0) -> torch.Tensor:
    """Mean cross-entropy in nats of each next token: ids (B, T), optional weights (B, T) of the predicted tokens."""
    hidden, targets = model.hidden(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
    weights = (targets != pad).float() if weights is None else weights[:, 1:].flatten() * (targets != pad)
    total = 0.0
    for x, y, w in zip(hidden.split(512), targets.split(512), weights.split(512), strict=True):    # so that they fit the cache
        total = total + (F.cross_entropy(model.head(x), y, reduction="none") * w).sum()
    return total / weights.sum()
