"""What is not of the world: photographs, noise, plain colours, silence, and words for things that nobody here can draw.

A model that knows its world can be asked about all of these, and has one right answer: that it does not know. Each
split has words, photographs and kinds of noise of its own, so that a refusal has to be composed, not remembered.
"""
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse.world.photos import album, open_photo
from mmcourse.world.scene import WORLD, World
from mmcourse.world.speech import LOUDNESS, SAMPLE_RATE, normalize_rms

PICTURES = ("photograph", "noise picture", "plain picture")
SOUNDS = ("silence", "noise")
OUTSIDE_SPLITS = ("train", "validation", "test")
# Things with regular plurals; none is a word of the course's world or an everyday word for one (`prompts.SYNONYMS`).
UNKNOWN_WORDS = {
    "train": tuple("""anchor arrow ax bagel balloon barrel basket beetle blanket bottle bucket button camel cannon carpet
    chair chicken circle coat coconut comb cookie curtain desk diamond doll donkey door dragon drum eagle engine envelope
    fence flag flute fork fountain fox glove goat hedgehog helmet hippo horse island jacket jar kangaroo kettle ladder
    lamp lantern lizard magnet melon mirror monkey mountain necklace needle octopus onion orchid oven paintbrush parrot
    peach peacock pear pencil piano pillow pirate potato pumpkin ring river rope rose sandal sausage scarf scooter
    shark shovel skeleton sock sofa spider spoon square squirrel statue stone swan sword table tambourine telephone tent
    tomato towel tractor triangle trumpet unicorn vase violin volcano wagon wheel whistle window worm""".split()),
    "validation": tuple("""airplane alligator broom cabbage cheetah drawer eel feather gorilla harp iguana joker kite
    lobster mop napkin ostrich pineapple raccoon saxophone sled teapot urn vulture walrus""".split()),
    "test": tuple("""accordion apricot bridge buffalo canoe crocodile dinosaur emu flamingo garage helicopter igloo
    koala lighthouse mermaid notebook oyster pelican quilt rhino strawberry tulip vampire windmill zebra""".split()),
}
# What nobody can answer about a thing of a picture, `{}` being its name.
UNANSWERABLE = {
    "train": ("how old is the {}?", "what is the name of the {}?", "who made the {}?", "what does the {} eat?",
              "is the {} happy?", "where was the {} yesterday?", "what does the {} cost?", "do you like the {}?"),
    "validation": ("how heavy is the {}?", "why is the {} there?", "is the {} asleep?", "who owns the {}?"),
    "test": ("what does the {} think?", "when did the {} come?", "how fast is the {}?", "does the {} smell good?"),
}
# Beside matplotlib's and those of `photos.album`, files that scikit-image ships; nothing trains on these.
MORE_PHOTOS = {"validation": ("clock_motion.png", "hubble_deep_field.jpg"), "test": ("ihc.png", "retina.jpg", "cell.png")}
SMALLEST_CROP = 48                  # pixels of a photograph that become a picture


def unknown_words(split: str, world: World = WORLD) -> tuple[str, ...]:
    """Nouns of a split that name nothing in the world."""
    check_outside_split(split)
    return tuple(word for word in UNKNOWN_WORDS[split] if word not in world.words)


@cache
def outside_photos(split: str) -> tuple[torch.Tensor, ...]:
    """The photographs of a split, (3, H, W) in [0, 1] each. ImportError without scikit-image, which brings them."""
    check_outside_split(split)
    learn, test = album()
    if not learn:
        raise ImportError("conversations show photographs, which scikit-image brings: pip install scikit-image")
    if split == "train":
        return tuple(learn)
    import skimage
    more = [open_photo(Path(skimage.__file__).parent / "data" / name) for name in MORE_PHOTOS[split]]
    return (open_photo(), *more) if split == "validation" else (*test.values(), *more)


def outside_picture(rng: np.random.Generator, name: str, split: str = "train", world: World = WORLD) -> torch.Tensor:
    """A picture of `PICTURES`, (3, size, size) in [0, 1]: a piece of a photograph, noise of a kind of the split, or one colour
    with nothing before it."""
    check_outside_split(split)
    if name not in PICTURES:
        raise ValueError(f"a picture from outside is one of {', '.join(PICTURES)}, got {name!r}")
    size = world.size
    if name == "plain picture":
        colours = list(world.backgrounds.values())
        colour = colours[rng.integers(len(colours))] if rng.random() < 0.5 else rng.integers(256, size=3)
        return (torch.tensor([int(c) for c in colour]) / 255).view(3, 1, 1).expand(3, size, size).clone()   # (3,) -> (3, 1, 1)
    if name == "noise picture":
        return NOISE_PICTURES[split](rng, size)
    photos = outside_photos(split)
    photo = photos[rng.integers(len(photos))]
    side = int(rng.integers(min(SMALLEST_CROP, *photo.shape[1:]), min(photo.shape[1:]) + 1))
    y, x = (int(rng.integers(length - side + 1)) for length in photo.shape[1:])
    piece = photo[:, y:y + side, x:x + side].flip([2] if rng.random() < 0.5 else [])
    return F.interpolate(piece[None], (size, size), mode="bilinear", antialias=True)[0].clamp(0, 1)


def _grain(rng: np.random.Generator, size: int) -> torch.Tensor:
    """Grains of one to sixteen pixels, grey or coloured, sharp or smooth."""
    grains = size // int(2 ** rng.integers(0, 5))
    noise = torch.from_numpy(rng.random((1, 3 if rng.random() < 0.7 else 1, grains, grains), np.float32))
    mode = {"mode": "nearest"} if rng.random() < 0.5 else {"mode": "bilinear", "align_corners": False}
    return F.interpolate(noise, (size, size), **mode)[0].expand(3, size, size).clone()


def _stripes(rng: np.random.Generator, size: int) -> torch.Tensor:
    """Stripes of two colours, of any width and slant."""
    angle, width = rng.random() * np.pi, rng.uniform(2, size / 4)
    at = np.arange(size) * np.cos(angle) + np.arange(size)[:, None] * np.sin(angle)         # (size, size)
    one, other = (torch.from_numpy(rng.random((3, 1, 1), np.float32)) for _ in range(2))
    return torch.where(torch.from_numpy(at // width % 2 == 0), one, other)


def _blots(rng: np.random.Generator, size: int) -> torch.Tensor:
    """Some twenty discs of random size and colour, over each other."""
    picture = torch.from_numpy(rng.random((3, 1, 1), np.float32)).repeat(1, size, size)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for _ in range(20):
        y, x, radius = (float(v) for v in rng.uniform((0, 0, 2), (size, size, size / 4)))
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        picture = torch.where(inside, torch.from_numpy(rng.random((3, 1, 1), np.float32)), picture)
    return picture


NOISE_PICTURES = {"train": _grain, "validation": _stripes, "test": _blots}


def outside_sound(rng: np.random.Generator, name: str, split: str = "train") -> np.ndarray:
    """A sound of `SOUNDS`, float32 (samples,) at 8 kHz, 0.3 to 2 s long: a room in which nobody speaks, or noise of a kind of
    the split, as loud as speech."""
    check_outside_split(split)
    if name not in SOUNDS:
        raise ValueError(f"a sound from outside is one of {', '.join(SOUNDS)}, got {name!r}")
    n = int(rng.uniform(0.3, 2.0) * SAMPLE_RATE)
    if name == "silence":
        hiss = rng.normal(size=n) * 10 ** rng.uniform(-6, -3)           # -120 to -60 dB: any microphone has some
        return (hiss * (rng.random() < 0.8)).astype(np.float32)
    noise = NOISE_SOUNDS[split](rng, n)
    return normalize_rms(noise - noise.mean(), LOUDNESS).astype(np.float32)


def _coloured(rng: np.random.Generator, n: int) -> np.ndarray:
    """Noise from white to brown."""
    spectrum = np.fft.rfft(rng.normal(size=n))
    return np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 20) ** rng.uniform(0, 1), n)


def _hum(rng: np.random.Generator, n: int) -> np.ndarray:
    """A machine: a low tone that stays, with its overtones, and some noise."""
    low, high = rng.uniform(40, 200), int(rng.integers(1, 12))
    time = np.arange(n) / SAMPLE_RATE
    tones = [rng.random() * np.sin(2 * np.pi * (low * k * time + rng.random())) for k in range(1, high + 1)]
    return np.sum(tones, axis=0) + rng.uniform(0.01, 0.3) * rng.normal(size=n)


def _beeps(rng: np.random.Generator, n: int) -> np.ndarray:
    """A machine that beeps: one short tone again and again, or several in turn."""
    tones, length = rng.uniform(200, 3000, rng.integers(1, 5)), int(rng.uniform(0.05, 0.4) * SAMPLE_RATE)
    at = np.arange(n) // length
    loud = (at % 2 == 0) if rng.random() < 0.5 else np.ones(n)
    return loud * np.sin(2 * np.pi * tones[at % len(tones)] * np.arange(n) / SAMPLE_RATE) + 0.01 * rng.normal(size=n)


def _gusts(rng: np.random.Generator, n: int) -> np.ndarray:
    """Coloured noise that swells and fades."""
    swell = 1 + np.sin(2 * np.pi * (rng.uniform(0.5, 6) * np.arange(n) / SAMPLE_RATE + rng.random()))
    return _coloured(rng, n) * swell ** rng.uniform(0.5, 3)


def _noise(rng: np.random.Generator, n: int) -> np.ndarray:
    """Noise of one of four kinds."""
    return (_coloured, _hum, _beeps, _gusts)[rng.integers(4)](rng, n)


def _clicks(rng: np.random.Generator, n: int) -> np.ndarray:
    """Knocks at random times."""
    knock = np.exp(-np.arange(200) / rng.uniform(5, 40)) * rng.normal(size=200)
    return np.convolve(rng.random(n) < rng.uniform(3, 30) / SAMPLE_RATE, knock)[:n] + 1e-4 * rng.normal(size=n)


def _whistle(rng: np.random.Generator, n: int) -> np.ndarray:
    """A tone that glides from one pitch to another."""
    hertz = np.geomspace(*rng.uniform(150, 2500, 2), n)
    return np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE) + 0.01 * rng.normal(size=n)


NOISE_SOUNDS = {"train": _noise, "validation": _clicks, "test": _whistle}


def check_outside_split(split: str) -> None:
    """ValueError for a split that there is not."""
    if split not in OUTSIDE_SPLITS:
        raise ValueError(f"what is outside has the splits {', '.join(OUTSIDE_SPLITS)}, got {split!r}")
