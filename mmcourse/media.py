"""What goes in and comes out: `Text`, `Image` and `Audio`, from files, bytes, arrays and PIL; bad input gets a clear error.

How files and arrays are read, and the one rule for their scale: `mmcourse.world.readers`.
"""
import io
import math
from dataclasses import dataclass, field

import numpy as np
import torch

from mmcourse.world.pictures import SIZE
from mmcourse.world.prompts import read_prompt
from mmcourse.world.readers import as_array, at_rate, is_file, read_pixels, read_sound
from mmcourse.world.speech import SAMPLE_RATE, to_mono, trim

MAX_SECONDS = 2.5                                       # the longest sound that the transformer listens to
MIN_SECONDS = 0.05
MIN_RATE = 1000                                         # Hz: below and above these nobody records
MAX_RATE = 400_000


@dataclass(frozen=True)
class Text:
    """Words. `Text("a cat on the left, red ground, sign K I T E")`; letters of a sign in capitals."""
    text: str
    remarks: tuple[str, ...] = field(default=(), repr=False, compare=False)      # what was not understood of the question

    def __post_init__(self):
        if not isinstance(self.text, str):
            raise TypeError(f"Text takes a string, got {type(self.text).__name__}")
        if not self.text.strip():
            raise ValueError('the text is empty: type a few words, for example "two cats on the left, blue ground"')

    def __str__(self):
        return self.text

    def normalised(self) -> str:
        """As the captions and instructions of the world are written (`read_prompt`).

        >>> Text("A cat,  sign KITE").normalised()
        'a cat, sign K I T E'
        """
        return read_prompt(self.text)[0]


class Image:
    """A picture: from a file, its bytes, a PIL image or pixels (H, W), (H, W, 3), (H, W, 4), uint8 or float in [0, 1].

    `pixels` is (H, W, 3) uint8. Transparent parts become white; CMYK, grey and palette pictures become RGB.
    """

    remarks: tuple[str, ...] = ()                                       # what was not understood of the question

    def __init__(self, source):
        self.pixels = source.pixels if isinstance(source, Image) else read_pixels(source)

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


class Audio:
    """A sound: samples (n,) or (n, channels) with their rate, or a file that soundfile reads (WAV, FLAC, OGG, MP3, ...).

    `samples` is (n,) float32 in [-1, 1], mono, at `rate` Hz. The scale of what goes in: see `to_mono`.
    """

    remarks: tuple[str, ...] = ()                                       # what was not understood of the question

    def __init__(self, source, rate: int | None = None):
        if isinstance(source, Audio):
            source, rate = source.samples, source.rate
        if is_file(source):
            source, rate = read_sound(source)
        number = isinstance(rate, (int, float, np.number)) and not isinstance(rate, bool)
        if not number or not MIN_RATE <= rate <= MAX_RATE or int(rate) != rate:
            raise ValueError(f"Audio needs the sample rate, a whole number of {MIN_RATE} to {MAX_RATE} Hz, for example "
                             f"Audio(samples, 16000); got {rate!r}")
        samples = to_mono(as_array(source, "samples have the shape (n,) or (n, channels)"))
        self.samples, self.rate = samples.astype(np.float32), int(rate)

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def cut(self, start: float, seconds: float) -> "Audio":
        """A part of the sound, from `start`, in seconds. ValueError if there is no such part."""
        if not 0 <= start < self.seconds or not 0 < seconds < math.inf:
            raise ValueError(f"a part begins between 0 and {self.seconds:.3g} s and lasts longer than 0 s, got start={start} "
                             f"and seconds={seconds}")
        first = int(start * self.rate)
        return Audio(self.samples[first:first + max(1, int(seconds * self.rate))], self.rate)

    def at(self, rate: int = SAMPLE_RATE) -> np.ndarray:
        """The samples (n,) float32 at another sample rate, in [-1, 1]."""
        return np.clip(at_rate(self.samples, self.rate, rate), -1, 1).astype(np.float32)

    def speech(self, rate: int = SAMPLE_RATE, longest: float = MAX_SECONDS) -> np.ndarray:
        """What the model hears: mono at `rate`, silence trimmed. ValueError if nothing is left or more than `longest` seconds."""
        if np.abs(self.samples - self.samples.mean()).max() < 1e-4:
            raise ValueError("the sound is silent: record again, nearer to the microphone")
        if self.seconds < MIN_SECONDS:
            raise ValueError(f"the sound lasts {self.seconds:.3f} s, too short for a word: give it at least {MIN_SECONDS} s")
        samples = trim(at_rate(self.samples - self.samples.mean(), self.rate, rate), rate)
        if len(samples) > longest * rate:
            raise ValueError(f"{len(samples) / rate:.1f} s of sound, but the model listens to at most {longest:g} s: it knows "
                             f"{'single words' if longest == MAX_SECONDS else 'short phrases'}. Use .cut(start, seconds) to "
                             "choose one")
        return samples.astype(np.float32)

    def _repr_html_(self):
        from IPython.display import Audio as Player
        return Player(self.samples, rate=self.rate)._repr_html_()

    def __repr__(self):
        return f"Audio({self.seconds:.2f} s at {self.rate} Hz)"
