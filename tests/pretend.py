"""A device that is not there: tensors that say they lie on it, keep their numbers, and refuse to meet those of the CPU.

On a machine without a GPU this finds what a GPU would refuse: `with pretended(): model.to(DEVICE)`, then compute. The rules are CUDA's:
tensors of two devices do not meet, but for numbers without an axis, indices on the CPU, and copies; dice are thrown where they land.
"""
import contextlib
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

DEVICE = torch.device("meta")           # the one device that every PyTorch has beside the CPU
aten = torch.ops.aten
COPIES = {aten._to_copy, aten.copy_, aten.copy}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
EQUALS_ONLY = {aten.cat, aten.stack, aten.mm, aten.bmm, aten.addmm, aten.embedding, aten.gather}      # not even numbers without an axis


class There(torch.Tensor):
    """A tensor on the device: `_numbers` is what it holds."""

    @staticmethod
    def __new__(cls, real):
        return torch.Tensor._make_wrapper_subclass(cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(),
                                                   dtype=real.dtype, device=DEVICE, requires_grad=False)

    def __init__(self, real):
        self._numbers = real

    is_meta = False                     # it has numbers

    def __repr__(self):
        return f"There({self._numbers})"

    def __format__(self, spec):
        return format(self._numbers.item(), spec)

    def __reduce_ex__(self, protocol):          # a file holds the numbers
        return self._numbers.__reduce_ex__(protocol)

    def tolist(self):
        return self._numbers.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return carried_out(func, args, kwargs or {})


class Mixed(RuntimeError):
    """Tensors of two devices have met."""


def carried_out(func, args, kwargs):
    """An operation on the real numbers; its results lie on the device if anything did, or if they shall."""
    given = args
    flat, spec = tree_flatten((args, kwargs))
    there = [x for x in flat if isinstance(x, There)]
    here = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, There)]
    if any(x.device == DEVICE for x in here):
        raise NotImplementedError(f"{func}: a tensor was made below the reach of this device, and has no numbers")
    wanted = kwargs.get("device")
    if there and here and func.overloadpacket not in COPIES:
        check(func, args, here)
    lands = torch.device(wanted).type == DEVICE.type if wanted is not None else bool(there)
    if func.overloadpacket is aten.copy_:
        lands = isinstance(args[0], There)
    if lands and getattr(kwargs.get("generator"), "device", DEVICE).type == "cpu":
        raise Mixed(f"{func}: dice of the CPU cannot be thrown on {DEVICE}")
    real = {id(x._numbers): x for x in there}
    flat = [x._numbers if isinstance(x, There) else torch.device("cpu") if isinstance(x, torch.device) and x == DEVICE
            else x for x in flat]
    args, kwargs = tree_unflatten(flat, spec)
    if lands and wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = func(*args, **kwargs)
    if torch.Tag.inplace_view in func.tags:     # another shape for the same numbers: the outside shall say it, too
        with no_dispatch():
            func(*given, **kwargs)
    if not lands:
        return out
    return tree_map(lambda x: real.get(id(x)) if id(x) in real else There(x) if isinstance(x, torch.Tensor) else x, out)


def check(func, args, here):
    """Mixed, unless CUDA would take these together."""
    packet = func.overloadpacket
    if packet in INDEXED and isinstance(args[0], There):
        here = [x for x in here if not any(x is index for index in args[1])]
    if any(x.ndim for x in here) or (here and packet in EQUALS_ONLY):
        shapes = ", ".join(str(tuple(x.shape)) for x in here)
        raise Mixed(f"{func}: a tensor of the CPU, {shapes}, among those of {DEVICE}")


class _Factories(TorchDispatchMode):
    """What makes tensors from nothing (`arange(device=...)`) goes the same way."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return carried_out(func, args, kwargs or {})


class _FromLists(TorchFunctionMode):
    """`torch.tensor(numbers, device=...)` and `x[[0, -1]]`: the numbers come from the CPU. (PyTorch does it below the reach of the
    mode above.)"""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(torch.tensor(part) if isinstance(part, list) else part for part in parts), *args[2:])
        return func(*args, **kwargs)


@contextlib.contextmanager
def pretended():
    """The device is there while the block lasts."""
    autocast = torch.autocast           # knows no meta device
    with _Factories(), _FromLists(), mock.patch("torch.autocast", lambda kind, *args, **more: autocast(
            "cpu" if kind == DEVICE.type else kind, *args, **more)):
        yield DEVICE
