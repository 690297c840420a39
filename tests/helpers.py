"""What several test files use: stand-ins and small random models. (Fixtures are in conftest.py.)"""
import io
import wave

import numpy as np
import torch

from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Vocabulary
from mmcourse.world.outside import PICTURES
from mmcourse.world.pictures import draw
from mmcourse.world.scene import Group, Scene

SMALL = Vocabulary(text=9, image=6, audio=4, audio_levels=2, image_tokens=5)


def wild_model(seed: int = 0, scale: float = 20.0, **changes) -> Transformer:
    """A random model over `SMALL` whose weights are far too large: its opinions are strong and mean nothing."""
    torch.manual_seed(seed)
    model = Transformer(**{"vocab_size": SMALL.size, "width": 16, "layers": 1, "heads": 2, "context": 96,
                           "segment_starts": tuple(OPEN.values()), **changes})
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model.eval()


class Letters:
    """A stand-in for the text tokenizer: one id a character."""

    def encode(self, text: str) -> list[int]:
        return [ord(c) % 100 for c in text]


def pictures_of_now(talk) -> list:
    """Of each turn of a conversation (of `mmcourse.world.dialogues`) the part that was drawn or shown last before it, be it of
    the world or not; None: there is none."""
    found, now = [], None
    for turn in talk:
        found.append(now)
        for part in (*turn.given, turn.answer):
            now = part if part.kind == "image" or part.value in PICTURES else now
    return found


CAT = draw(Scene((Group("cat", 1, "left"),), "blue"))          # pixels (64, 64, 3) uint8


def tone(seconds: float, rate: int = 8000, hertz: float = 300.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def wav(samples: np.ndarray, rate: int, channels: int = 1) -> bytes:
    """A WAV file, written by Python's own module: 16 bits."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return out.getvalue()


def encoded(picture, kind: str, **options) -> bytes:
    """A PIL image as the bytes of a file."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Random pixels, the same for the same size."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)
