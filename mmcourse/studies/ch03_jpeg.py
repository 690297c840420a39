"""72 bytes against what a person would use: `python -m mmcourse.studies.ch03_jpeg`, about two minutes of one core.

JPEG, WebP and AVIF as Pillow writes them, on held-out pictures: for each, the best PSNR among sizes and qualities that fits
72, 144, 288 and 576 bytes, counted once without the file's headers and once with them. Writes data/results/ch03_jpeg.json.
"""
import argparse
import io
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmcourse import checkpoints
from mmcourse.paths import RESULTS
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene

KINDS, BUDGETS = ("JPEG", "WEBP", "AVIF"), (72, 144, 288, 576)
SIZES, QUALITIES = (8, 16, 24, 32, 48, 64), (0, 5, 15, 30, 50, 70, 85, 95)


@cache
def can_write(kind: str) -> bool:
    """Whether this Pillow writes that kind of file: AVIF came with 11.3 (2025), and some builds leave it out."""
    try:
        Image.new("RGB", (8, 8)).save(io.BytesIO(), kind)
    except (KeyError, OSError):
        return False
    return True


def payload(data: bytes) -> int:
    """Bytes of picture data in a file: JPEG after the last header, WebP after its 30-byte headers, AVIF in its `mdat` box."""
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
    """(3, H, W) shrunk until its longer side is `size`, written as a file, read and enlarged again: the file, (3, H, W)."""
    image, file = Image.fromarray((pixels.permute(1, 2, 0) * 255).round().byte().numpy()), io.BytesIO()
    small = [max(1, round(side * size / max(image.size))) for side in image.size]
    image.resize(small, Image.Resampling.LANCZOS).save(file, kind, quality=quality)
    back = Image.open(io.BytesIO(file.getvalue())).convert("RGB").resize(image.size, Image.Resampling.BICUBIC)
    return file.getvalue(), torch.from_numpy(np.array(back)).permute(2, 0, 1) / 255


def candidates(pixels: torch.Tensor, kind: str) -> list[dict]:
    """Every size (64: as it is) and quality of a picture (3, H, W): error, picture, bytes of picture data and of the file."""
    out = []
    for size in SIZES:
        for quality in QUALITIES:
            data, back = squeeze(pixels, kind, round(size * max(pixels.shape[1:]) / 64), quality)
            out.append({"mse": (back - pixels).square().mean().item(), "picture": back, "payload": payload(data),
                        "file": len(data)})
    return out


def best(found: list[dict], budget: int, count: str = "payload") -> dict | None:
    """The candidate of least error with `count` ("payload" or "file") within the budget; None if nothing fits."""
    return min((f for f in found if f[count] <= budget), key=lambda f: f["mse"], default=None)


def as_small(pixels: torch.Tensor, kind: str = "JPEG") -> torch.Tensor:
    """The best picture of that kind with no more bytes of picture data than our tokens of (3, H, W) have."""
    tokens = -(-pixels.shape[1] // 8) * -(-pixels.shape[2] // 8)
    return best(candidates(pixels, kind), tokens * 9 / 8)["picture"]


# ---------------------------------------------------------------- photographs

def open_photo(file=None, longest: int = 180) -> torch.Tensor:
    """Any picture file, its longest side at most `longest` pixels: (3, H, W) in [0, 1]. None: matplotlib's Grace Hopper."""
    if file is None:
        from matplotlib.cbook import get_sample_data
        file = get_sample_data("grace_hopper.jpg", asfileobj=False)
    image = Image.open(file).convert("RGB")
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def album() -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Photographs that scikit-image ships: those to learn from, in three sizes, and Chelsea the cat to be tested on. Both empty,
    with a word why, where they are missing."""
    try:
        import skimage
        folder = Path(skimage.__file__).parent / "data"
        names = "astronaut camera coffee rocket motorcycle_left brick grass gravel coins".split()
        learn = [open_photo(next(folder.glob(f"{name}.*")), size) for name in names for size in (128, 180, 256)]
        return learn, {"Chelsea": open_photo(folder / "chelsea.png")}
    except (ImportError, OSError, StopIteration) as error:
        print("no photographs to learn from, so nothing is trained below: pip install scikit-image;", error)
        return [], {}


def crops(rng: np.random.Generator, photos: list[torch.Tensor], n: int = 32) -> tuple[torch.Tensor]:
    """A batch for `train`: n pieces of random photographs, half of them mirrored, (n, 3, 64, 64), alone in a tuple."""
    out = []
    for _ in range(n):
        photo = photos[rng.integers(len(photos))]
        y, x = (rng.integers(side - 63) for side in photo.shape[1:])
        out.append(photo[:, y:y + 64, x:x + 64].flip([2] if rng.random() < 0.5 else []))
    return (torch.stack(out),)


def mean_psnr(errors) -> float:
    """Mean over pictures of -10 log10 of the squared error, in dB."""
    return float(-10 * np.log10(np.maximum(errors, 1e-10)).mean())


def main(argv: list[str] | None = None) -> dict:
    """Measure and write."""
    from mmcourse.judges import PictureReader, read_sign
    from mmcourse.studies.ch03_sweep import letters_right, save
    parser = argparse.ArgumentParser(prog="python -m mmcourse.studies.ch03_jpeg")
    parser.add_argument("--pictures", type=int, default=48)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rng, scenes = np.random.default_rng((0, 98)), []
    while len(scenes) < args.pictures:                                 # pictures with a sign, so that all can be read
        scene = sample_scene(rng, "held-out")
        scenes += [scene] if scene.sign else []
    truth, reader = draw_batch(scenes), PictureReader()

    def row(pictures, errors) -> dict:
        said = [s.sign if s else "" for s in reader.read(torch.stack(pictures))]
        letters = sum(letters_right(a, s.sign) for a, s in zip(said, scenes)) / sum(len(s.sign) for s in scenes)
        out = {"psnr_db": round(mean_psnr(errors), 2), "letters": round(letters, 3)}
        try:
            out["signs_ocr"] = round(float(np.mean([read_sign(p) == s.sign for p, s in zip(pictures, scenes)])), 3)
        except ImportError as error:
            print(f"the signs are not read: {error}")
        return out

    model = checkpoints.load("vqvae")
    decoded = model.decode(model.encode(truth))
    result = {"pictures": len(scenes), "true pictures": row(list(truth), [1e-10] * len(truth)),
              "tokens": {"bytes": 72, **row(list(decoded), (decoded - truth).square().mean((1, 2, 3)).tolist())}, "codecs": []}
    for kind in filter(can_write, KINDS):
        found = [candidates(x, kind) for x in truth]
        for count in ("payload", "file"):
            for budget in BUDGETS:
                chosen = [best(f, budget, count) for f in found]
                fits = [c for c in chosen if c]
                entry = {"kind": kind, "count": count, "budget": budget, "fits": len(fits)}
                if len(fits) == len(scenes):                           # else the mean would be of the easy ones
                    entry |= {**row([c["picture"] for c in fits], [c["mse"] for c in fits]),
                              "whole_file": round(float(np.mean([c["file"] for c in fits])), 1)}
                result["codecs"].append(entry)
                print(entry, flush=True)
    save(result, RESULTS / "ch03_jpeg.json")
    return result


if __name__ == "__main__":
    main()
