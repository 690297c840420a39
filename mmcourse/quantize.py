"""Vectors <-> ids, for pictures (chapter 03) and sound (chapter 04).

Sources: van den Oord et al. 2017 (straight-through gradient; codes as moving averages, appendix A.1),
Dhariwal et al. 2020 (restarts), Mentzer et al. 2023 (FSQ), Zeghidour et al. 2021 (residual quantization and
its dropout).
"""
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.distributed import from_first, gathered, processes, summed


def nearest_code(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """The index of the nearest code for each vector: (N, d), (K, d) -> (N,) int64.

    |x - e|^2 = |x|^2 - 2 x.e + |e|^2, and |x|^2 is the same for every code: one matrix
    product decides. The codes' mean is subtracted first, which changes no distance: squares
    of large numbers would swallow small differences.
    """
    center = codebook.mean(0)
    codebook = codebook - center
    with torch.autocast(x.device.type, enabled=False):  # never in bfloat16: codes lie close
        scores = torch.addmm(codebook.square().sum(1), x - center, codebook.T, alpha=-2)
    return scores.argmin(1)


def k_means(vectors: torch.Tensor, codebook_size: int, rounds: int = 10) -> torch.Tensor:
    """Lloyd's algorithm from random members: (N, d) -> (codebook_size, d).

    A code that nobody chose stays where it is.
    """
    book = vectors[torch.randint(len(vectors), (codebook_size,))].clone()
    for _ in range(rounds):
        chosen = nearest_code(vectors, book)
        counts = torch.bincount(chosen, minlength=codebook_size)[:, None]
        means = torch.zeros_like(book).index_add_(0, chosen, vectors) / counts.clamp(min=1)
        book = torch.where(counts > 0, means, book)
    return book


class VectorQuantizer(nn.Module):
    """A codebook that follows the data by moving averages (EMA); dead codes are restarted.

    Dead is a code used less than `dead_below` of its fair share: tokens a step / K. Where
    several processes train, the data are those of all (`summed`, `gathered`: chapter 14).
    """

    def __init__(self, codebook_size: int = 512, dim: int = 16, decay: float = 0.98,
                 commitment: float = 0.25, dead_below: float = 0.03):
        super().__init__()
        self.codebook_size, self.decay = codebook_size, decay
        self.commitment, self.dead_below = commitment, dead_below
        self.register_buffer("codebook", torch.randn(codebook_size, dim))
        # moving averages: how often a code is chosen in a step, the sum of its vectors
        self.register_buffer("cluster_size", torch.ones(codebook_size))
        self.register_buffer("embed_sum", self.codebook.clone())
        self.register_buffer("initialized", torch.zeros(()))   # 1 once filled from data

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, d) -> quantized (N, d), indices (N,), commitment loss.

        The gradient passes straight through. In train mode the codebook moves too, but not
        while gradients are off (who encodes does not train), nor by vectors that are not
        finite: one NaN would spoil it for good.
        """
        x = x.float()                           # autocast may hand in bfloat16: too coarse
        learning = (self.training and torch.is_grad_enabled()
                    and not summed((~x.isfinite()).sum()))
        if learning and not self.initialized:
            self._restart(x.detach(), torch.ones_like(self.cluster_size, dtype=torch.bool))
            self.initialized.fill_(1)
        indices = nearest_code(x.detach(), self.codebook)
        quantized = self.codebook[indices]
        loss = self.commitment * F.mse_loss(x, quantized)      # pulls x towards its codes
        if learning:
            self._ema_update(x.detach(), indices)
        return x + (quantized - x).detach(), indices, loss

    @torch.no_grad()
    def _ema_update(self, x: torch.Tensor, indices: torch.Tensor) -> None:
        """Each code moves to the running mean of the vectors that chose it."""
        count = summed(torch.bincount(indices, minlength=self.codebook_size))
        self.cluster_size.mul_(self.decay).add_(count, alpha=1 - self.decay)
        self.embed_sum.mul_(self.decay / processes())          # of the old sum each a part
        summed(self.embed_sum.index_add_(0, indices, x, alpha=1 - self.decay))
        self.codebook.copy_(self.embed_sum / self.cluster_size.clamp(min=1e-5)[:, None])
        fair_share = int(count.sum()) / self.codebook_size
        self._restart(x, self.cluster_size < self.dead_below * fair_share)

    @torch.no_grad()
    def _restart(self, x: torch.Tensor, dead: torch.Tensor) -> None:
        """Dead codes are put on random vectors of this batch, with a fair share of use."""
        if n := int(dead.sum()):
            x = gathered(x)
            self.codebook[dead] = x[from_first(torch.randint(len(x), (n,)).to(x.device))]
            self.cluster_size[dead] = len(x) / self.codebook_size
            self.embed_sum[dead] = self.codebook[dead] * self.cluster_size[dead, None]


class ResidualQuantizer(nn.Module):
    """Several `VectorQuantizer`s in a row: each quantizes what those before left over."""

    def __init__(self, levels: int = 4, codebook_size: int = 512, dim: int = 64,
                 commitment: float = 0.25):
        super().__init__()
        self.commitment = commitment
        self.levels = nn.ModuleList(VectorQuantizer(codebook_size, dim)
                                    for _ in range(levels))

    @property
    def codebooks(self) -> list[torch.Tensor]:
        """One (codebook_size, dim) tensor for each level."""
        return [quantizer.codebook for quantizer in self.levels]

    def forward(self, x: torch.Tensor, n_levels: torch.Tensor | None = None):
        """(N, d) -> quantized (N, d), indices (N, levels), commitment loss.

        The gradient passes straight through. `n_levels` (N,): how many levels each row may
        use, None: all. Dropping the last in training lets the leading ones stand alone.
        """
        x = x.float()                           # autocast may hand in bfloat16: too coarse
        rest, quantized, indices, loss = x, torch.zeros_like(x), [], x.new_zeros(())
        for level, quantizer in enumerate(self.levels):
            code, index, _ = quantizer(rest)
            used = x.new_ones(1) if n_levels is None else (n_levels > level).to(x)
            quantized = quantized + used[:, None] * code.detach()
            rest = rest - code.detach()
            loss = loss + self.commitment * (used[:, None] * rest.square()).mean()
            indices.append(index)
        return x + (quantized - x).detach(), torch.stack(indices, 1), loss

    def decode(self, indices: torch.Tensor) -> torch.Tensor:
        """(..., L) int64, L of the leading levels -> the sum of their codes (..., d)."""
        books = self.codebooks[:indices.shape[-1]]
        return sum(book[indices[..., level]] for level, book in enumerate(books))


class FSQ(nn.Module):
    """Finite scalar quantization: squash each number, round it to one of a few levels.

    The codebook is the grid of all combinations: nothing is learned, so nothing can die.
    ValueError for a level below 2.
    """

    def __init__(self, levels: tuple[int, ...] = (8, 8, 8)):
        super().__init__()
        check_levels(levels)
        sizes = torch.tensor(levels)
        self.levels, self.codebook_size = tuple(levels), int(sizes.prod())
        self.register_buffer("sizes", sizes, persistent=False)
        places = sizes.cumprod(0) // sizes                     # 1, 8, 64: the digits' worth
        self.register_buffer("places", places, persistent=False)
        digits = torch.arange(self.codebook_size)[:, None] // places % sizes
        self.register_buffer("codebook", digits / (sizes - 1) * 2 - 1, persistent=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, d) -> quantized (N, d) in [-1, 1], indices (N,), a loss of zero.

        The gradient passes straight through.
        """
        top = self.sizes - 1
        squashed = (x.float().tanh() + 1) / 2 * top         # each number in 0 .. levels - 1
        digits = squashed.round()
        indices = (digits.detach().long() * self.places).sum(1)
        out = squashed + (digits - squashed).detach()
        return out / top * 2 - 1, indices, x.new_zeros(())


def check_levels(levels: tuple[int, ...]) -> None:
    """ValueError unless there is at least one dimension, and each has two levels or more."""
    if not levels or min(levels) < 2:
        raise ValueError(f"FSQ needs two levels or more in every dimension, got {levels}")
