"""What the studies of chapter 07 share: the control of a flow, tokens that the transformer wrote, a distance
for few."""
import numpy as np
import torch
from torch import nn

from mmcourse import checkpoints
from mmcourse.files import atomic_write
from mmcourse.judges.metrics import frechet_distance, held_out_scenes
from mmcourse.paths import cache_dir
from mmcourse.world.scene import caption


def regression_loss(model: nn.Module, truth: torch.Tensor, plain: torch.Tensor,
                    codes: torch.Tensor) -> torch.Tensor:
    """The control of a flow decoder, for pictures and for sound: the same network and data without noise or
    time.

    Squared error of one call, from zeros, at t = 0: it learns the mean of what the plain decoder got wrong.
    """
    data = (truth - plain) / model.residual_std
    return (model(torch.zeros_like(data), data.new_zeros(len(data)), plain, codes) - data).square().mean()


@torch.no_grad()
def regress(model: nn.Module, plain: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """What a network that `regression_loss` trained makes of the plain picture or mel: one call."""
    return plain + model.residual_std * model(torch.zeros_like(plain), plain.new_zeros(len(plain)), plain, codes)


def distance(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """`frechet_distance`; None for sets too small for one, as in a toy."""
    return frechet_distance(a, b) if min(len(a), len(b)) > a.shape[1] else None


def written_tokens(n: int, seed: int = 0) -> torch.Tensor:
    """What the shipped transformer draws for the captions of `held_out_scenes(n, seed)`, one try each: (n, 8,
    8).

    Cached by its checkpoint.
    """
    from mmcourse.assistant import load
    made_with = checkpoints.identity("transformer")
    file = cache_dir() / f"decoder-study-tokens-{made_with[:8]}-{n}-{seed}.npy"
    if not file.exists():
        assistant = load()
        ids = [assistant.tokens(caption(s), "image", seed + i, best_of=1).ids
               for i, s in enumerate(held_out_scenes(n, seed))]
        with atomic_write(file) as draft:
            np.save(draft, np.array(ids, dtype=np.int64).reshape(-1, 8, 8))
    return torch.from_numpy(np.load(file))
