"""A transformer of which some blocks work on half of the tokens only; a router says on which (chapter 12).

Source: Raposo et al. 2024 (mixture of depths). There each sequence's top tokens are taken, which looks ahead; here a token is
taken if its score is above a bar, a running quantile of the scores in training, so that nothing that comes later decides.
"""
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.transformer import Transformer, check_ids, segment_positions
from mmcourse.vocabulary import PAD

ROUTERS = ("learned", "by place", "thrown")
MOMENTUM = 0.98                         # of the running quantile


def pass_through(block: nn.Module, x: torch.Tensor, chosen: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Residual stream (B, T, C): the block works on the `chosen` tokens (B, T) alone, and what it adds counts `gate` (B, T). The
    others stay as they are, and are not seen."""
    B, T, C = x.shape
    most = max(1, int(chosen.sum(1).max()))
    order = (~chosen).int().argsort(dim=1, stable=True)[:, :most]           # (B, K): the chosen, in their order; then some others
    index = order[..., None].expand(B, most, C)
    inside = x.gather(1, index)                                         # (B, K, C)
    added = block(inside) - inside                                      # causal: the chosen never see those behind them
    return x.scatter_add(1, index, added * (gate * chosen).gather(1, order)[..., None])


class Router(nn.Module):
    """Which tokens go through a block: the share `share` of them with the highest scores.

    Args:
        kind: `learned`: the score is read off the token's state; `by place`: learned for each place of a segment of each kind,
            blind for what the token is; `thrown`: by dice, for each token once and for all.
        opens: the ids that open a segment. places: how many a segment has at most.
    """

    def __init__(self, kind: str, width: int, share: float, opens: tuple[int, ...], places: int):
        super().__init__()
        if kind not in ROUTERS:
            raise ValueError(f"a router is one of {', '.join(ROUTERS)}, got {kind!r}")
        self.kind, self.share, self.opens = kind, share, opens
        self.score_head = nn.Linear(width, 1) if kind == "learned" else None
        self.score_embed = nn.Embedding((len(opens) + 1) * places, 1) if kind == "by place" else None
        for layer in filter(None, (self.score_head, self.score_embed)):
            nn.init.normal_(layer.weight, std=0.02)
        self.register_buffer("bar", torch.zeros(()))

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States (B, T, C) of ids (B, T) -> chosen (B, T) bool, and how much the block's work counts (B, T)."""
        if self.kind == "thrown":
            before = F.pad(ids, (1, 0))[:, :-1]
            steps = torch.arange(ids.shape[1], device=ids.device)
            mixed = (ids * 1_000_003 + before * 7919 + steps * 104_729) * 2_654_435_761 % 2**32
            return (mixed < self.share * 2**32) & (ids != PAD), torch.ones_like(x[..., 0])
        scores = (self.score_head(x) if self.kind == "learned" else self.score_embed(self.places_of(ids)))[..., 0]      # (B, T)
        bar = self.bar
        if self.training:
            bar = scores.detach()[ids != PAD].quantile(1 - self.share)
            self.bar.lerp_(bar, 1 - MOMENTUM)
        return (scores > bar) & (ids != PAD), scores.sigmoid()

    def places_of(self, ids: torch.Tensor) -> torch.Tensor:
        """The row of the table for each token: its place in its segment, and that segment's kind."""
        positions, _ = segment_positions(ids, self.opens)
        steps = torch.arange(ids.shape[1], device=ids.device)
        opener = ids.gather(1, (steps - positions).clamp(min=0))      # (B, T): the token that opened the segment
        kind = (opener[..., None] == torch.tensor(self.opens, device=ids.device)).int() @ torch.arange(
            1, len(self.opens) + 1, device=ids.device, dtype=torch.int)
        places = self.score_embed.num_embeddings // (len(self.opens) + 1)
        return kind * places + positions.clamp(max=places - 1)


class RoutedTransformer(Transformer):
    """A `Transformer` whose blocks `routed` work on the share `share` of the tokens. It keeps no cache."""

    def __init__(self, vocab_size: int, router: str = "learned", routed: tuple[int, ...] = (1, 3), share: float = 0.5, **size):
        super().__init__(vocab_size, **size)
        self.config |= {"router": router, "routed": list(routed), "share": share}
        self.routers = nn.ModuleDict({str(i): Router(router, self.width, share, self.segment_starts, self.context)
                                      for i in routed})
        self.chosen: dict[int, torch.Tensor] = {}                       # of the last pass: block -> (B, T)

    def hidden(self, ids: torch.Tensor, cache=None) -> torch.Tensor:
        """(B, T) -> the residual stream after the last block, normed (B, T, C). ValueError for a cache."""
        if cache is not None:
            raise ValueError("a routed transformer keeps no cache: generate with use_cache=False")
        check_ids(ids, self)
        positions, segment_ids = segment_positions(ids, self.segment_starts)
        x = self.token_embed(ids) + self.position_embed(positions) + self.segment_embed(segment_ids.clamp(max=self.segments))
        for i, block in enumerate(self.blocks):
            if str(i) in self.routers:
                self.chosen[i], gate = self.routers[str(i)](x, ids)
                x = pass_through(block, x, self.chosen[i], gate)
            else:
                x = block(x)
        return self.norm(x)


def make(kind: str, vocab_size: int, seed: int, layers: int, **size) -> Transformer:
    """A net of `layers` blocks, every other one routed; `dense`: none of them."""
    torch.manual_seed(seed)
    if kind == "dense":
        return Transformer(vocab_size, layers=layers, **size)
    return RoutedTransformer(vocab_size, kind, tuple(range(1, layers, 2)), layers=layers, **size)
