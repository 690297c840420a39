"""Photographs, which the drawn world has none of; and pictures squeezed into files of few bytes.

The photographs are those of scikit-image (optional), matplotlib's, or any file. Chapter 03 shows them to a
tokenizer that has seen drawings alone, and holds its tokens against JPEG, WebP and AVIF of as many bytes.
"""
import io
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

KINDS = ("JPEG", "WEBP", "AVIF")                # file formats, as Pillow calls them
BUDGETS = (72, 144, 288, 576)                   # bytes; 72 are 64 tokens of 9 bits
SIZES = (8, 16, 24, 32, 48, 64)                 # longer side in pixels when written, for a picture of 64
QUALITIES = (0, 5, 15, 30, 50, 70, 85, 95)      # of 100


FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")      # what is read: nothing that starts a program

# ---------------------------------------------------------------- photographs

def open_photo(file=None, longest: int = 180) -> torch.Tensor:
    """Any picture file, its longest side at most `longest` pixels: (3, H, W) in [0, 1].

    None: matplotlib's photograph of Grace Hopper.
    """
    if file is None:
        from matplotlib.cbook import get_sample_data
        file = get_sample_data("grace_hopper.jpg", asfileobj=False)
    Image.init()
    image = Image.open(file, formats=[kind for kind in FORMATS if kind in Image.OPEN]).convert("RGB")
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def album() -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Photographs that scikit-image ships: those to learn from, in three sizes, and Chelsea the cat as a
    test.

    Both are empty, with a word why, where they are missing.
    """
    names = "astronaut camera coffee rocket motorcycle_left brick grass gravel coins".split()
    try:
        import skimage
        folder = Path(skimage.__file__).parent / "data"
        files = [next(folder.glob(f"{name}.*")) for name in names]
        learn = [open_photo(file, longest) for file in files for longest in (128, 180, 256)]
        return learn, {"Chelsea": open_photo(folder / "chelsea.png")}
    except (ImportError, OSError, StopIteration) as error:
        print("no photographs to learn from, so nothing is trained below: pip install scikit-image;", error)
        return [], {}


def crops(rng: np.random.Generator, photos: list[torch.Tensor], n: int = 32) -> tuple[torch.Tensor]:
    """A batch for `train`: (n, 3, 64, 64) pieces of random photographs, half of them mirrored, in a tuple."""
    out = []
    for _ in range(n):
        photo = photos[rng.integers(len(photos))]
        y, x = (rng.integers(side - 63) for side in photo.shape[1:])
        out.append(photo[:, y:y + 64, x:x + 64].flip([2] if rng.random() < 0.5 else []))
    return (torch.stack(out),)


# ---------------------------------------------------------------- files of few bytes

@cache
def can_write(kind: str) -> bool:
    """Whether this Pillow writes that kind of file: AVIF came with 11.3 (2025), and some builds lack it."""
    try:
        Image.new("RGB", (8, 8)).save(io.BytesIO(), kind)
    except (KeyError, OSError):
        return False
    return True


def payload(data: bytes) -> int:
    """Bytes of picture data in a file.

    JPEG: after the last header; WebP: after its 30-byte headers; AVIF: in its `mdat` box. ValueError for
    others. """
    if data[:2] == b"\xff\xd8":
        at = data.index(b"\xff\xda")                                   # start of scan: its own header follows
        return len(data) - at - 2 - int.from_bytes(data[at + 2:at + 4], "big") - 2
    if data[:4] == b"RIFF":
        return len(data) - 30
    if data[4:8] == b"ftyp":
        at = data.index(b"mdat")
        return int.from_bytes(data[at - 4:at], "big") - 8
    raise ValueError(f"neither JPEG nor WebP nor AVIF: the file begins with {data[:12]!r}")


def squeeze(pixels: torch.Tensor, kind: str, size: int, quality: int) -> tuple[bytes, torch.Tensor]:
    """(3, H, W) shrunk to a longer side of `size`, written as a file, read, enlarged: the file and (3, H,
    W)."""
    image, file = Image.fromarray((pixels.permute(1, 2, 0) * 255).round().byte().numpy()), io.BytesIO()
    small = [max(1, round(side * size / max(image.size))) for side in image.size]
    image.resize(small, Image.Resampling.LANCZOS).save(file, kind, quality=quality)
    back = Image.open(io.BytesIO(file.getvalue())).convert("RGB").resize(image.size, Image.Resampling.BICUBIC)
    return file.getvalue(), torch.from_numpy(np.array(back)).permute(2, 0, 1) / 255


def candidates(pixels: torch.Tensor, kind: str) -> list[dict]:
    """A picture (3, H, W) in every size (64: as it is) and quality.

    Each with its squared error `mse`, the `picture`, and the bytes of picture data (`payload`) and of the
    `file`. """
    out = []
    for size in SIZES:
        for quality in QUALITIES:
            data, back = squeeze(pixels, kind, round(size * max(pixels.shape[1:]) / 64), quality)
            out.append({"mse": (back - pixels).square().mean().item(), "picture": back,
                        "payload": payload(data), "file": len(data)})
    return out


def best(found: list[dict], budget: float, count: str = "payload") -> dict | None:
    """The candidate of least error with `count` ("payload" or "file") within the budget; None if nothing
    fits."""
    return min((f for f in found if f[count] <= budget), key=lambda f: f["mse"], default=None)


def as_small(pixels: torch.Tensor, kind: str = "JPEG") -> torch.Tensor:
    """The best picture of that kind with no more bytes of picture data than our tokens of (3, H, W) have."""
    tokens = -(-pixels.shape[1] // 8) * -(-pixels.shape[2] // 8)
    return best(candidates(pixels, kind), tokens * 9 / 8)["picture"]
