"""What several test files use: stand-ins and small random models. (Fixtures are in conftest.py.)"""
import torch

from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Vocabulary

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
