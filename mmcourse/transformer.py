"""The one model: a causal transformer over the one vocabulary, with a KV cache.

It never asks which kind a token is. Sources: Vaswani et al. 2017; pre-norm and initialisation as GPT-2
(Radford et al. 2019); squared ReLU (So et al. 2021).
"""
import math

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Self-attention with several heads: (B, T, C) -> (B, T, C). Causal: a token sees
    those before it and itself; if not, it sees all (chapter 08)."""

    def __init__(self, width: int, heads: int, causal: bool = True):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, cache=None):
        B, T, C = x.shape
        q, k, v = (self.qkv(x).view(B, T, 3, self.heads, C // self.heads)
                   .permute(2, 0, 3, 1, 4))                            # (B, heads, T, C / heads) each
        if cache is not None:
            k, v = cache.append(k, v)                                  # (B, heads, past + T, C / heads)
        past = k.shape[2] - T                                          # tokens that were seen before these
        mask = (torch.ones(T, past + T, dtype=torch.bool, device=x.device).tril(past)
                if past and T > 1 else None)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal and past == 0)
        return self.out(y.transpose(1, 2).reshape(B, T, C))            # the heads side by side


class MLP(nn.Module):
    """Widen four times, squared ReLU, back again: (B, T, C) -> (B, T, C)."""

    def __init__(self, width: int):
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    """Attention moves information between tokens, the MLP works on each alone; both add to the
    residual stream."""

    def __init__(self, width: int, heads: int, causal: bool = True):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads, causal)
        self.norm2, self.mlp = nn.LayerNorm(width), MLP(width)

    def forward(self, x, cache=None):
        x = x + self.attention(self.norm1(x), cache)
        return x + self.mlp(self.norm2(x))


class LayerCache:
    """Keys and values of one layer, for tokens that were seen already. Memory is taken once, for
    `length` tokens.

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


def segment_positions(ids: torch.Tensor,
                      segment_starts: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each token stands: (B, T) -> its position in its segment (B, T) and the number of
    its segment (B, T).

    A segment starts at an opening boundary token, so image token 5 stands at position 6, whatever came
    before the picture.
    """
    starts = torch.tensor(segment_starts, dtype=ids.dtype, device=ids.device)
    opens = torch.isin(ids, starts)
    steps = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    last_open = torch.where(opens, steps, 0).cummax(1).values
    return steps - last_open, opens.cumsum(1)


class Transformer(nn.Module):
    """Next-token prediction over ids (B, T): logits (B, T, vocab).

    Args:
        vocab_size: ids lie in 0..vocab_size-1.
        context: the longest sequence.
        segment_starts: ids that start a segment; positions are counted from there. Empty: plain positions.
        segments: how many segments a sequence may have.
    """

    def __init__(self, vocab_size: int, width: int = 192, layers: int = 6, heads: int = 6, context: int = 256,
                 segment_starts: tuple[int, ...] = (), segments: int = 16):
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        self.config = {"vocab_size": vocab_size, "width": width, "layers": layers, "heads": heads,
                       "context": context, "segment_starts": list(segment_starts), "segments": segments}
        self.vocab_size, self.context, self.segment_starts, self.segments = (
            vocab_size, context, tuple(segment_starts), segments)
        self.heads, self.width = heads, width
        self.token_embed = nn.Embedding(vocab_size, width)
        self.position_embed = nn.Embedding(context, width)
        self.segment_embed = nn.Embedding(segments + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self.apply(self._init)
        for block in self.blocks:  # the residual stream sums 2 x layers terms: keep its size near 1
            for layer in (block.attention.out, block.mlp.down):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * layers))

    @staticmethod
    def _init(module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)

    def hidden(self, ids: torch.Tensor, cache: "KVCache | None" = None) -> torch.Tensor:
        """(B, T) int64 -> the residual stream after the last block, normed: (B, T, C)."""
        check_ids(ids, self, cache)
        locate = segment_positions if cache is None else cache.positions
        positions, segment_ids = locate(ids, self.segment_starts)
        x = (self.token_embed(ids) + self.position_embed(positions)
             + self.segment_embed(segment_ids.clamp(max=self.segments)))
        for i, block in enumerate(self.blocks):
            x = block(x, cache.layers[i] if cache is not None else None)
        return self.norm(x)

    def forward(self, ids: torch.Tensor, cache: "KVCache | None" = None) -> torch.Tensor:
        """(B, T) int64 -> logits (B, T, vocab). With a cache, `ids` are the new tokens
        after those it holds."""
        return self.head(self.hidden(ids, cache))

    @property
    def device(self) -> torch.device:
        return self.token_embed.weight.device


class KVCache:
    """What generation need not compute twice: keys and values of every layer, and where the last token stood.

    It is made for `batch` sequences of up to `context` tokens.
    """

    def __init__(self, model: Transformer, batch: int):
        weight, dim = model.token_embed.weight, model.width // model.heads
        self.layers = [LayerCache(batch, model.heads, model.context, dim, weight) for _ in model.blocks]
        # -1: the first token will stand at 0
        self.last_position = torch.full((batch, 1), -1, device=model.device)
        self.last_segment = torch.zeros_like(self.last_position)

    @property
    def length(self) -> int:
        return self.layers[0].filled

    def positions(self, ids: torch.Tensor,
                  segment_starts: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """As `segment_positions` for the new tokens (B, T), counted on from those that were seen."""
        positions, segment_ids = segment_positions(ids, segment_starts)
        # no new segment yet
        positions = torch.where(segment_ids == 0, positions + self.last_position + 1, positions)
        segment_ids = segment_ids + self.last_segment
        self.last_position, self.last_segment = positions[:, -1:], segment_ids[:, -1:]
        return positions, segment_ids


def check_ids(ids: torch.Tensor, model: Transformer, cache: KVCache | None = None) -> None:
    """Clear errors for ids that are no batch of sequences, too many, or not of this vocabulary (looked at on
    the CPU only: on a GPU the look would wait for all work before it)."""
    if not isinstance(ids, torch.Tensor) or ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"ids are a tensor of int64, got {getattr(ids, 'dtype', type(ids).__name__)}: use .long()")
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(f"ids have shape (B, T) with at least one token, got {tuple(ids.shape)}")
    length = ids.shape[1] + (cache.length if cache is not None else 0)
    if length > model.context:
        raise ValueError(f"{length} tokens do not fit the context of {model.context}: shorten the prompt")
    if ids.device.type == "cpu" and not 0 <= int(ids.min()) <= int(ids.max()) < model.vocab_size:
        raise ValueError(f"ids lie in 0..{model.vocab_size - 1}, got {int(ids.min())}..{int(ids.max())}")


LOSS_CHUNK = 512        # tokens whose logits are made at once: those of a whole batch would be large


def next_token_loss(model, ids: torch.Tensor, weights: torch.Tensor | None = None,
                    pad: int = 0) -> torch.Tensor:
    """Mean cross-entropy in nats of each next token: ids (B, T), optional weights (B, T) of the
    predicted tokens."""
    hidden, targets = model.hidden(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
    weights = (targets != pad).float() if weights is None else weights[:, 1:].flatten() * (targets != pad)
    total = 0.0
    for x, y, w in zip(hidden.split(LOSS_CHUNK), targets.split(LOSS_CHUNK), weights.split(LOSS_CHUNK)):
        total = total + (F.cross_entropy(model.head(x), y, reduction="none") * w).sum()
    return total / weights.sum()


def predicted(ids: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """What `next_token_loss` is the mean of: the tokens that are predicted, or their weights, added up."""
    there = (ids[:, 1:] != 0).float()
    return (there if weights is None else weights[:, 1:] * there).sum()


next_token_loss.mean_over = predicted
