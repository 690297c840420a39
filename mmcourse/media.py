"""What goes in and comes out: `Text`, `Image` and `Audio`, from files, bytes, arrays and PIL; bad input gets a clear error."""
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmcourse.world.pictures import SIZE
from mmcourse.world.speech import SAMPLE_RATE, resample, to_mono, trim

MAX_SECONDS = 2.5                                       # the longest sound that the transformer listens to
MIN_SECONDS = 0.05
MIN_RATE = 1000                                         # Hz: below and above these nobody records
MAX_RATE = 400_000


@dataclass(frozen=True)
class Text:
    """Words. `Text("a cat on the left, red ground, sign K I T E")`; letters of a sign in capitals."""
    text: str

    def __post_init__(self):
        if not isinstance(self.text, str):
            raise TypeError(f"Text takes a string, got {type(self.text).__name__}")
        if not self.text.strip():
            raise ValueError('the text is empty: type a few words, for example "two cats on the left, blue ground"')

    def __str__(self):
        return self.text

    def normalised(self) -> str:
        """As the captions of the world are written: lower case, single spaces, a word in capitals spelled letter by letter.

        >>> Text("A cat,  sign KITE").normalised()
        'a cat, sign K I T E'
        """
        words = " ".join(self.text.split()).split(" ")
        spelled = [" ".join(w) if re.fullmatch("[A-Z]{2,}", w) else w for w in words]
        single = [w if re.fullmatch("[A-Z]( [A-Z])*", w) and i else w.lower() for i, w in enumerate(spelled)]
        return " ".join(single).rstrip(".")


class Image:
    """A picture: from a file, its bytes, a PIL image or pixels (H, W), (H, W, 3), (H, W, 4), uint8 or float in [0, 1].

    `pixels` is (H, W, 3) uint8. Transparent parts become white; CMYK, grey and palette pictures become RGB.
    """

    def __init__(self, source):
        self.pixels = _read_pixels(source)

    @property
    def pil(self):
        from PIL import Image as Pillow
        return Pillow.fromarray(self.pixels)

    def square(self, size: int = SIZE) -> torch.Tensor:
        """What the model sees: the whole picture, fitted into (1, 3, size, size), edges filled with its border's colour."""
        from PIL import Image as Pillow
        height, width = self.pixels.shape[:2]
        if (height, width) == (size, size):
            fitted = self.pixels
        else:
            ratio = size / max(height, width)
            new = (max(1, round(width * ratio)), max(1, round(height * ratio)))
            small = np.asarray(self.pil.resize(new, Pillow.Resampling.BOX if ratio < 1 else Pillow.Resampling.NEAREST))
            border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
            fitted = np.empty((size, size, 3), np.uint8)
            fitted[:] = np.median(border, axis=0)
            top, left = (size - small.shape[0]) // 2, (size - small.shape[1]) // 2
            fitted[top:top + small.shape[0], left:left + small.shape[1]] = small
        return torch.from_numpy(fitted.copy()).permute(2, 0, 1)[None].float() / 255        # (H, W, 3) -> (1, 3, H, W)

    def _repr_png_(self):
        from PIL import Image as Pillow
        times = max(1, 256 // max(self.pixels.shape[:2]))
        big = self.pil.resize((self.pixels.shape[1] * times, self.pixels.shape[0] * times), Pillow.Resampling.NEAREST)
        buffer = io.BytesIO()
        big.save(buffer, "PNG")
        return buffer.getvalue()

    def __repr__(self):
        return f"Image({self.pixels.shape[1]}x{self.pixels.shape[0]})"


def _read_pixels(source) -> np.ndarray:
    """Pixels (H, W, 3) uint8 of anything that `Image` takes."""
    from PIL import Image as Pillow
    if isinstance(source, Image):
        return source.pixels
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().numpy()
    if isinstance(source, (str, Path, bytes, bytearray)):
        source = _open_picture(source)
    if isinstance(source, Pillow.Image):
        source = _from_pillow(source)
    if not isinstance(source, np.ndarray):
        raise TypeError(f"Image takes a file name, bytes, a PIL image or an array of pixels, got {type(source).__name__}")
    return _from_array(source)


def _open_picture(source):
    """A file or its bytes as a PIL image, decoded; ValueError or FileNotFoundError says what is wrong with it."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError
    in_memory = isinstance(source, (bytes, bytearray))
    name = "the bytes" if in_memory else str(source)
    if not in_memory and not Path(source).is_file():
        raise FileNotFoundError(f"there is no file {source}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            picture = Pillow.open(io.BytesIO(source) if in_memory else source)
            if picture.width * picture.height > 4096 * 4096:            # JPEGs can be read smaller right away
                picture.draft("RGB", (1024, 1024))
            picture.load()
            return picture
    except (Pillow.DecompressionBombWarning, Pillow.DecompressionBombError):
        raise ValueError(f"{name} has too many pixels: make it smaller than 9,000 x 9,000") from None
    except Exception as error:
        said = "no known picture format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{name} cannot be read as a picture ({said}): is it whole, and really a PNG, JPEG, GIF, BMP "
                         "or WebP file?") from None


def _from_pillow(picture) -> np.ndarray:
    """A PIL image of any mode as an array: upright, on white where it was transparent, deep grey scaled to [0, 1]."""
    from PIL import Image as Pillow
    from PIL import ImageOps
    picture = ImageOps.exif_transpose(picture)                          # photos of a phone that was held upright
    if picture.mode[0] in "IF":                                         # 16 or 32 bits a pixel: Pillow would cut, not scale
        values, full = np.asarray(picture, dtype=np.float64), 65535 if picture.mode[0] == "I" else 1
        return values.clip(0) / max(values.max(), full)                 # NaN stays, and is named below
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        picture = Pillow.alpha_composite(Pillow.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(picture.convert("RGB"))


def _from_array(pixels: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, 1 | 3 | 4) or (3, H, W), uint8 or float in [0, 1] -> (H, W, 3) uint8, on white."""
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and pixels.shape[2] not in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, 2)                              # (3, H, W) -> (H, W, 3)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise ValueError(f"pixels have the shape (H, W), (H, W, 3) or (H, W, 4), got {pixels.shape}")
    if pixels.dtype != np.uint8:
        values = pixels.astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("the picture holds NaN or infinite values: look at what made it")
        if values.min() < 0 or values.max() > 1:
            raise ValueError(f"pixels that are not uint8 must lie in [0, 1], got {values.min():.3g}..{values.max():.3g}: "
                             "divide by the largest value, or convert to uint8 if they are 0..255")
        pixels = (values * 255 + 0.5).astype(np.uint8)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.float64) / 255
        pixels = (pixels[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()


class Audio:
    """A sound: samples (n,) or (n, channels) with their rate, or a file that soundfile reads (WAV, FLAC, OGG, MP3, ...).

    `samples` is (n,) float32 in [-1, 1], mono, at `rate` Hz.
    """

    def __init__(self, source, rate: int | None = None):
        if isinstance(source, (str, Path, bytes, bytearray)):
            source, rate = _read_sound(source)
        if rate is None or not MIN_RATE <= rate <= MAX_RATE or int(rate) != rate:
            raise ValueError(f"Audio needs the sample rate, a whole number of {MIN_RATE} to {MAX_RATE} Hz, for example "
                             f"Audio(samples, 16000); got {rate!r}")
        samples = to_mono(source.detach().cpu() if isinstance(source, torch.Tensor) else source)
        self.samples, self.rate = samples.astype(np.float32), int(rate)

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def cut(self, start: float, seconds: float) -> "Audio":
        """A part of the sound, from `start`, in seconds."""
        first = int(start * self.rate)
        return Audio(self.samples[first:first + int(seconds * self.rate)], self.rate)

    def at(self, rate: int = SAMPLE_RATE) -> np.ndarray:
        """The samples (n,) float32 at another sample rate, in [-1, 1]."""
        return np.clip(resample(self.samples, self.rate, rate), -1, 1).astype(np.float32)

    def speech(self, rate: int = SAMPLE_RATE) -> np.ndarray:
        """What the model hears: mono at `rate`, silence trimmed. ValueError if nothing or too much is left."""
        if np.abs(self.samples - self.samples.mean()).max() < 1e-4:
            raise ValueError("the sound is silent: record again, nearer to the microphone")
        if self.seconds < MIN_SECONDS:
            raise ValueError(f"the sound lasts {self.seconds:.3f} s, too short for a word: give it at least {MIN_SECONDS} s")
        samples = trim(resample(self.samples - self.samples.mean(), self.rate, rate), rate)
        if len(samples) > MAX_SECONDS * rate:
            raise ValueError(f"{len(samples) / rate:.1f} s of sound, but the model listens to at most {MAX_SECONDS} s: it "
                             "knows single words. Use .cut(start, seconds) to choose one")
        return samples.astype(np.float32)

    def _repr_html_(self):
        from IPython.display import Audio as Player
        return Player(self.samples, rate=self.rate)._repr_html_()

    def __repr__(self):
        return f"Audio({self.seconds:.2f} s at {self.rate} Hz)"


def _read_sound(source) -> tuple[np.ndarray, int]:
    import soundfile
    if isinstance(source, (str, Path)) and not Path(source).is_file():
        raise FileNotFoundError(f"there is no file {source}")
    try:
        return soundfile.read(io.BytesIO(source) if isinstance(source, (bytes, bytearray)) else str(source), dtype="float32")
    except Exception as error:
        name = "the bytes" if isinstance(source, (bytes, bytearray)) else str(source)
        raise ValueError(f"{name} cannot be read as sound ({error}): is it whole, and really a WAV, FLAC, OGG or MP3 file?") \
            from None
