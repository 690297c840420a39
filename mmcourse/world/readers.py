"""Pictures and sounds as people have them (files, bytes, open files, PIL, arrays, tensors) -> pixels and samples.

One rule for scale, and no guessing. Pictures: uint8 is 0..255, uint16 is 0..65535, floats lie in [0, 1]. Sounds
(`mmcourse.world.speech.to_mono`): whole numbers of 8, 16 or 32 bits have the full scale of their type, floats lie
in [-1, 1]. Everything else is refused, in one sentence.
"""
import io
import math
import warnings
from pathlib import Path

import numpy as np
import torch

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "AVIF")     # no others: some start programs (EPS)
MOST_PIXELS = 4096 * 4096                           # larger pictures are read smaller
TOLERANCE = 1e-3                                    # floats may leave [0, 1] by a rounding error
MOST_SAMPLES = 100_000_000                          # of a sound file, all channels together


# ---------------------------------------------------------------- files and arrays

def is_file(source) -> bool:
    """Whether something is a file's name, its bytes, or an open file."""
    return isinstance(source, (str, Path, bytes, bytearray, memoryview)) or hasattr(source, "read") and hasattr(source, "seek")


def bytes_of(source, what: str) -> tuple[bytes, str]:
    """The bytes of a file, of bytes or of an open file, and what to call it; FileNotFoundError or ValueError
    without any."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), what
    if not isinstance(source, (str, Path)):
        data = source.read()
        if not isinstance(data, bytes):
            raise TypeError("the open file gives text, not bytes: open it with open(name, 'rb')")
        return data, getattr(source, "name", None) or what
    name = str(source) if len(str(source)) < 200 else f"{str(source)[:80]}..."
    try:
        if not Path(source).is_file():
            raise FileNotFoundError
        return Path(source).read_bytes(), name
    except (FileNotFoundError, ValueError):                             # ValueError: a name that no file can have
        raise FileNotFoundError(f"there is no file {name!r}") from None
    except OSError as error:
        if error.strerror == "File name too long":
            raise FileNotFoundError(f"there is no file {name!r}") from None
        raise ValueError(f"{name} cannot be opened: {error.strerror or error}") from None


def as_array(source, shapes: str) -> np.ndarray:
    """An array or a tensor as plain numbers; TypeError or ValueError for what holds none."""
    if isinstance(source, torch.Tensor):
        if source.is_meta or source.layout != torch.strided:
            raise ValueError(f"a {'meta' if source.is_meta else 'sparse'} tensor has no numbers in rows and columns: "
                             "give an ordinary one")
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
    try:
        array = np.asarray(source)
    except ValueError:
        raise ValueError(f"{shapes}, got rows of unequal length") from None
    if array.dtype.kind not in "biuf":
        kind = "complex numbers" if array.dtype.kind == "c" else f"{array.dtype}"
        raise TypeError(f"an array of whole numbers or floats is wanted, got {kind}")
    return array


# ---------------------------------------------------------------- pictures

def read_pixels(source) -> np.ndarray:
    """Pixels (H, W, 3) uint8 of anything that `mmcourse.media.Image` takes."""
    from PIL import Image as Pillow
    if is_file(source):
        source = _open_picture(source)
    elif isinstance(source, Pillow.Image):
        name = getattr(source, "format", None) or FORMATS[0]
        if name not in (*FORMATS, "MPO"):
            raise ValueError(f"pictures of the kind {name} are not read here: save it as a PNG or JPEG file")
        source = _decoded(lambda: _from_pillow(source), "the picture")
    elif isinstance(source, (np.ndarray, torch.Tensor, list, tuple)):
        source = as_array(source, "pixels have the shape (H, W), (H, W, 3) or (H, W, 4)")
    else:
        raise TypeError(f"Image takes a file name, bytes, a PIL image or an array of pixels, got {type(source).__name__}")
    return _from_array(source)


def _decoded(read, name: str):
    """`read()`, or one sentence if foreign code fails on what it was given, however it fails."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                             # damaged EXIF and the like: read without it
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            return read()
    except (Pillow.DecompressionBombWarning, Pillow.DecompressionBombError):
        raise ValueError(f"too many pixels in {name}: make it smaller than 9,000 x 9,000") from None
    except Exception as error:
        said = "no known picture format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{name} cannot be read as a picture ({said}): is it whole, and really a PNG, JPEG, GIF, BMP, "
                         "WebP, TIFF or AVIF file?") from None


def _open_picture(source) -> np.ndarray:
    """The pixels of a file of the kinds in `FORMATS`, as stored; ValueError or FileNotFoundError says what is wrong."""
    from PIL import Image as Pillow
    data, name = bytes_of(source, "the picture")

    def read():
        Pillow.init()
        picture = Pillow.open(io.BytesIO(data), formats=[kind for kind in FORMATS if kind in Pillow.OPEN])
        if picture.width * picture.height > MOST_PIXELS:                # JPEGs can be read smaller right away
            picture.draft("RGB", (1024, 1024))
        picture.load()
        return _from_pillow(picture)
    return _decoded(read, name)


def _from_pillow(picture) -> np.ndarray:
    """A PIL image of any mode as an array: upright, not too large, on white where it was transparent; deep grey
    stays deep."""
    from PIL import Image as Pillow
    from PIL import ImageOps
    sixteen_bits = picture.mode == "I" and picture.format == "PNG"      # as older versions of Pillow open these
    try:
        picture = ImageOps.exif_transpose(picture)                      # photos of a phone that was held upright
    except Exception:                                                   # damaged EXIF: the picture as it lies
        pass
    times = math.ceil(math.sqrt(picture.width * picture.height / MOST_PIXELS))
    if picture.mode[0] in "IF":
        values = np.asarray(picture)[::times, ::times]
        return values.astype(np.uint16) if sixteen_bits else values
    transparent = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    if picture.mode in ("P", "PA", "1") or "transparency" in picture.info:
        picture = picture.convert("RGBA" if transparent else "RGB")
    if times > 1:
        picture = picture.reduce(times)
    if transparent:
        rgba = picture.convert("RGBA")
        picture = Pillow.alpha_composite(Pillow.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(picture.convert("RGB"))


def _from_array(pixels: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, 1 | 3 | 4) or (3, H, W), uint8, uint16, bool or float in [0, 1] -> (H, W, 3) uint8, on white."""
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and pixels.shape[2] not in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, 2)                              # (3, H, W) -> (H, W, 3)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise ValueError(f"pixels have the shape (H, W), (H, W, 3) or (H, W, 4), got {pixels.shape}")
    pixels = _eight_bits(pixels)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.float64) / 255
        pixels = (pixels[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Numbers of any stated scale as uint8; ValueError for whole numbers that have none, and floats outside [0, 1]."""
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    if kind == "b" or kind == "u" and size <= 2:
        full = 1 if kind == "b" else 255 if size == 1 else 65535
        return pixels.astype(np.uint8) if full == 255 else (pixels.astype(np.float32) * (255 / full) + 0.5).astype(np.uint8)
    lowest, highest = pixels.min(), pixels.max()
    if kind in "iu":
        raise ValueError(f"whole numbers are uint8 (0..255) or uint16 (0..65535), got {pixels.dtype} with {lowest}..{highest}, "
                         "which says nothing of its scale: use .astype(np.uint8) if they are 0..255")
    if not np.isfinite(pixels).all():
        raise ValueError("the picture holds NaN or infinite values: look at what made it")
    if lowest < -TOLERANCE or highest > 1 + TOLERANCE:
        advice = "they look like [-1, 1]: use (x + 1) / 2" if -1.01 < lowest < 0 and highest < 1.01 else \
            "convert to uint8 if they are 0..255, else divide by the largest value that there can be"
        raise ValueError(f"pixels that are floats must lie in [0, 1], got {lowest:.5g}..{highest:.5g}: {advice}")
    return (pixels.clip(0, 1).astype(np.float64) * 255 + 0.5).astype(np.uint8)


# ---------------------------------------------------------------- sounds

def at_rate(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Samples (n,) at another rate, whatever the two are: by soxr. (The corpus is made with our own `resample`, which
    gives the same bits on every machine, but takes long where the rates share no factor.)"""
    if rate == new_rate:
        return samples
    import soxr
    return soxr.resample(samples, rate, new_rate)


def read_sound(source) -> tuple[np.ndarray, int]:
    """Samples (n, channels) float32 and rate of a sound file, read in pieces: what its header says of its length may
    be wrong."""
    import soundfile

    class Stream(soundfile.SoundFile):
        """From front to end: seeking fails where the header does not know the length (FLAC of ffmpeg and VLC)."""

        def seekable(self) -> bool:
            return False
    data, name = bytes_of(source, "the sound")
    try:
        with Stream(io.BytesIO(data)) as file:
            pieces, left = [], MOST_SAMPLES // file.channels
            while left > 0 and len(piece := file.read(min(left, 1 << 18), dtype="float32", always_2d=True)):
                pieces.append(piece)
                left -= len(piece)
            rate = file.samplerate
    except Exception as error:
        said = getattr(error, "error_string", None) or (type(error).__name__ if "0x" in str(error) else error)
        raise ValueError(f"{name} cannot be read as sound ({said}): is it whole, and really a WAV, FLAC, OGG or MP3 file?"
                         ) from None
    if left <= 0:
        raise ValueError(f"{name} is too long, more than {MOST_SAMPLES:,} samples: cut it to a few minutes first")
    return (np.concatenate(pieces) if pieces else np.zeros((0, 1), np.float32)), rate
