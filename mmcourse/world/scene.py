"""What there is: a `Scene`, its caption, and the one rule that says which combinations are held out.

A scene has one or two groups of objects, a coloured ground and perhaps a sign with a word. Everything else in the
course (pictures, captions, speech, the judges' answers) is computed from it, so "correct" is never a matter of taste.
"""
import hashlib
import re
from dataclasses import dataclass

import numpy as np

# noun -> the pictogram's character. Regular plurals only, words that sound and look unlike each other.
PICTOGRAMS = {
    "ant": "🐜", "apple": "🍎", "ball": "⚽", "banana": "🍌", "bear": "🐻", "bee": "🐝", "bell": "🔔", "bicycle": "🚲",
    "bird": "🐦", "boat": "⛵", "book": "📕", "bus": "🚌", "cactus": "🌵", "camera": "📷", "candle": "🕯", "car": "🚗",
    "carrot": "🥕", "castle": "🏰", "cat": "🐱", "cherry": "🍒", "clock": "🕰", "cloud": "☁", "cow": "🐮", "crab": "🦀",
    "crown": "👑", "cup": "☕", "dog": "🐶", "dolphin": "🐬", "donut": "🍩", "duck": "🦆", "egg": "🥚", "elephant": "🐘",
    "fish": "🐟", "flower": "🌻", "frog": "🐸", "ghost": "👻", "giraffe": "🦒", "grape": "🍇", "guitar": "🎸",
    "hammer": "🔨", "hat": "🎩", "heart": "❤", "house": "🏠", "key": "🔑", "lemon": "🍋", "lion": "🦁", "moon": "🌙",
    "mushroom": "🍄", "owl": "🦉", "panda": "🐼", "penguin": "🐧", "pizza": "🍕", "rabbit": "🐰", "robot": "🤖",
    "rocket": "🚀", "snail": "🐌", "star": "⭐", "sun": "☀", "tiger": "🐯", "train": "🚂", "tree": "🌲", "turtle": "🐢",
    "umbrella": "☂", "whale": "🐳",
}
NOUNS = tuple(PICTOGRAMS)
BACKGROUNDS = {
    "white": (244, 244, 240), "grey": (150, 152, 158), "red": (226, 88, 80), "orange": (246, 160, 66),
    "yellow": (250, 222, 96), "green": (112, 190, 110), "blue": (108, 164, 232), "purple": (168, 124, 206),
}
COUNTS = ("one", "two", "three", "four")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PLACES = ("left", "right")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WORDS = tuple(sorted({*NOUNS, *BACKGROUNDS, *DIGITS, *PLACES}))
SIGN_LENGTHS = (3, 4, 5)


@dataclass(frozen=True)
class Group:
    """`count` objects of one kind. One or two stand on the `left` or on the `right`; three or four stand everywhere."""
    noun: str
    count: int = 1
    place: str = ""

    def __post_init__(self):
        if self.noun not in PICTOGRAMS:
            raise ValueError(f"unknown noun {self.noun!r}; the world has: {', '.join(NOUNS)}")
        if self.count not in (1, 2, 3, 4):
            raise ValueError(f"a group has 1 to 4 objects, got {self.count!r}")
        if (self.place in PLACES) != (self.count <= 2) or (self.count > 2 and self.place):
            raise ValueError("one or two objects need place='left' or 'right'; three or four need place=''")


@dataclass(frozen=True)
class Scene:
    """One scene. `shift` (dx, dy) in pixels of a 64-pixel picture and `scale` move the drawing, not the meaning.

    `ground` is one of `BACKGROUNDS`, or a colour without a name as `#rrggbb`: then the caption is silent about it.
    """
    groups: tuple[Group, ...]
    background: str = "white"
    sign: str = ""
    shift: tuple[int, int] = (0, 0)
    scale: float = 1.0

    def __post_init__(self):
        background_colour(self.background)
        if not 1 <= len(self.groups) <= 2:
            raise ValueError(f"a scene has one or two groups, got {len(self.groups)}")
        if len(self.groups) == 2 and [g.place for g in self.groups] != list(PLACES):
            raise ValueError("two groups stand on the left and on the right, in this order")
        if self.sign and not re.fullmatch("[A-Z]{3,5}", self.sign):
            raise ValueError(f"a sign has 3 to 5 letters A-Z, got {self.sign!r}")


def background_colour(background: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 ... 255, of a named ground or of a `#rrggbb` colour; ValueError for anything else."""
    if background in BACKGROUNDS:
        return BACKGROUNDS[background]
    if re.fullmatch("#[0-9a-f]{6}", background):
        return tuple(bytes.fromhex(background[1:]))
    raise ValueError(f"unknown ground {background!r}; the world has: {', '.join(BACKGROUNDS)}, and colours as '#rrggbb'")


def nearest_background(background: str) -> str:
    """The named ground that a ground looks most like (a named one looks like itself)."""
    colour = background_colour(background)
    return min(BACKGROUNDS, key=lambda name: sum((a - b) ** 2 for a, b in zip(colour, BACKGROUNDS[name], strict=True)))


def plural(noun: str) -> str:
    """The regular English plural.

    >>> plural("cat"), plural("bus"), plural("cherry"), plural("fish")
    ('cats', 'buses', 'cherries', 'fishes')
    """
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "sh", "ch", "x")) else "s")


def describe(group: Group) -> str:
    """A group in words: `a cat on the left`, `two suns on the right`, `four dogs`."""
    article = "an" if group.noun[0] in "aeiou" else "a"
    words = f"{article} {group.noun}" if group.count == 1 else f"{COUNTS[group.count - 1]} {plural(group.noun)}"
    return words + (f" on the {group.place}" if group.place else "")


def caption(scene: Scene) -> str:
    """The full caption: everything that the picture shows. A sign is spelled, one letter a word.

    >>> caption(Scene((Group("cat", 1, "left"), Group("sun", 2, "right")), "blue", "KITE"))
    'a cat on the left, two suns on the right, blue ground, sign K I T E'
    """
    parts = [describe(group) for group in scene.groups]
    if scene.background in BACKGROUNDS:
        parts.append(f"{scene.background} ground")
    if scene.sign:
        parts.append("sign " + " ".join(scene.sign))
    return ", ".join(parts)


def parse_caption(text: str) -> Scene:
    """The scene that a full caption describes: the exact inverse of `caption`. ValueError if it is not one."""
    parts = text.strip().split(", ")
    sign = parts.pop()[5:].replace(" ", "") if parts[-1].startswith("sign ") else ""
    if not parts or not parts[-1].endswith(" ground"):
        raise ValueError(f"not a caption of this world (no ground): {text!r}")
    background, groups = parts.pop().removesuffix(" ground"), []
    for part in parts:
        words, _, place = part.partition(" on the ")
        number, _, noun = words.partition(" ")
        count = 1 if number in ("a", "an") else COUNTS.index(number) + 1 if number in COUNTS[1:] else 0
        groups.append(Group(_SINGULAR.get(noun, noun) if count > 1 else noun, count, place))
    scene = Scene(tuple(groups), background, sign)
    if caption(scene) != text.strip():
        raise ValueError(f"not a caption of this world: {text!r}")
    return scene


_SINGULAR = {plural(noun): noun for noun in NOUNS}


def _share(*key) -> float:
    """A number in [0, 1) that depends on the key alone: the same on every machine and in every year."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out_pair(noun: str, background: str) -> bool:
    """True for the one (noun, ground) pair in ten that nothing trains on."""
    return _share("pair", noun, background) < 0.1


def held_out_sign(word: str) -> bool:
    """True for the one sign word in ten that nothing trains on. No word (``""``) is never held out."""
    return bool(word) and _share("sign", word) < 0.1


def held_out_voice(voice: int) -> bool:
    """True for the voices that nothing trains on: every sixth one of `mmcourse.world.speech.VOICES`."""
    return voice % 6 == 5


def is_held_out(scene: Scene) -> bool:
    """True if anything in the scene is held out. Nothing trains on such a scene.

    A ground without a name counts as the named one that it looks like: what is held out on blue is held out on sky blue.
    """
    background = nearest_background(scene.background)
    return held_out_sign(scene.sign) or any(held_out_pair(g.noun, background) for g in scene.groups)


def unnamed_background(rng: np.random.Generator) -> str:
    """A random colour that none of the named grounds comes near, as `#rrggbb`."""
    while True:
        colour = rng.integers(40, 256, 3)
        if all(np.abs(colour - named).max() > 24 for named in BACKGROUNDS.values()):
            return "#" + bytes(colour.tolist()).hex()


def sample_scene(rng: np.random.Generator, split: str = "train", jitter: int = 0, kinds: int | None = None,
                 unnamed: float = 0.0) -> Scene:
    """A random scene.

    Args:
        rng: numpy generator; the same state gives the same scene.
        split: `train` (nothing held out), `held-out` (a (noun, ground) pair is held out, and so is the sign), `any`.
        jitter: the drawing moves by up to this many pixels each way, and its scale by 4 % for each pixel.
        kinds: 1 or 2 kinds of object; random if None.
        unnamed: how often the ground is a colour without a name.
    """
    if split not in ("train", "held-out", "any"):
        raise ValueError(f"split is 'train', 'held-out' or 'any', got {split!r}")
    wanted = {"train": (False,), "held-out": (True,), "any": (False, True)}[split]
    names = list(BACKGROUNDS)
    while True:
        background, n = names[rng.integers(len(names))], kinds or int(rng.integers(1, 3))
        if unnamed and rng.random() < unnamed:
            background = unnamed_background(rng)
        like = nearest_background(background)
        nouns = [NOUNS[i] for i in rng.choice(len(NOUNS), n, replace=False)]
        if any(held_out_pair(noun, like) for noun in nouns) in wanted:
            break
    if n == 1:
        count = int(rng.choice([1, 2, 3, 4], p=[0.5, 0.2, 0.15, 0.15]))
        groups = (Group(nouns[0], count, PLACES[rng.integers(2)] if count <= 2 else ""),)
    else:
        groups = tuple(Group(noun, 1 + int(rng.random() < 0.3), place)
                       for noun, place in zip(nouns, PLACES, strict=True))
    sign = ""
    if rng.random() < 0.5:
        while not sign or held_out_sign(sign) not in wanted:
            sign = "".join(LETTERS[i] for i in rng.integers(26, size=rng.choice(SIGN_LENGTHS)))
    shift = tuple(int(v) for v in rng.integers(-jitter, jitter + 1, size=2)) if jitter else (0, 0)
    scale = float(1 + 0.04 * rng.uniform(-jitter, jitter)) if jitter else 1.0
    return Scene(groups, background, sign, shift, scale)
