"""What the models ask of ids, seeds and numbers, said once: each check refuses with one clear sentence."""
import operator

import torch

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
            torch.uint16, torch.uint32, torch.uint64)
MOST_STEPS = 1000           # of a sampler: each is a pass through the network


def check_ids(ids, vocab_size: int, axes: tuple[str, ...], what: str = "ids") -> None:
    """ValueError or TypeError unless `ids` is a tensor that any decoder can look up in its codebook.

    Args:
        ids: whole numbers of any width, signed or not, in 0 ... `vocab_size` - 1.
        axes: the names of its axes; `("B", "h", "w")`. None may be empty, but there may be no rows.
        what: how the sentence calls them: `image ids`.
    """
    if not isinstance(ids, torch.Tensor) or ids.ndim != len(axes) or ids.shape[1:].count(0):
        found = f"shape {tuple(ids.shape)}" if isinstance(ids, torch.Tensor) else type(ids).__name__
        raise ValueError(f"{what} are a tensor of integers, shape ({', '.join(axes)}), not empty; got {found}")
    if ids.is_meta or ids.layout != torch.strided:
        raise ValueError(f"{what} are an ordinary tensor of integers that holds its numbers, got a "
                         f"{'meta' if ids.is_meta else 'sparse'} one")
    if ids.dtype not in INTEGERS:
        raise TypeError(f"{what} are whole numbers, a tensor of integers, got {ids.dtype}")
    ids = ids.long()                                         # unsigned ones cannot be compared
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise ValueError(f"{what} lie in 0..{vocab_size - 1}, got {int(ids.min())}..{int(ids.max())}")


def device_of(model) -> torch.device:
    """Where a model's weights lie, and what it is given must."""
    return next(model.parameters()).device


def whole(number) -> int | None:
    """A whole number of any kind (Python's, NumPy's, a tensor's) as an int; None for anything else, True too."""
    if isinstance(number, bool) or type(number).__name__ in ("bool_", "bool"):
        return None
    try:
        return operator.index(number)
    except (TypeError, ValueError, RuntimeError):
        return None


def check_whole(number, name: str, most: int | None = None, hint: str = "") -> None:
    """ValueError unless `number` is a whole number of 1 or more, and at most `most`."""
    found = whole(number)
    if found is None or found < 1:
        raise ValueError(f"{name} is a whole number of 1 or more, got {number!r}{hint}")
    if most is not None and found > most:
        raise ValueError(f"{name} is at most {most:,}, got {found:,}{hint}")


def check_seed(seed, optional: bool = True) -> None:
    """ValueError unless `seed` is a whole number that a generator takes, or None if that is `optional`."""
    if seed is None and optional:
        return
    if whole(seed) is None or not 0 <= whole(seed) < 2**63:
        otherwise = ", or None for another answer each time" if optional else ""
        raise ValueError(f"seed is a whole number from 0 to 2^63 - 1{otherwise}; got {seed!r}")
