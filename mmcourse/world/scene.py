"""What there is: a `Scene`, and the `World` that it is of.

A scene has one or two groups of objects, a coloured background and perhaps a sign with a word. Everything
else in the course (pictures, captions, speech, the judges' answers) is computed from it, so "correct" is
never a matter of taste. `WORLD` is the course's world; the plain names at the end of this file
(`sample_scene`, `caption`, `NOUNS`, ...) are its own.
"""
import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache

import numpy as np

from mmcourse.world.grammar import COUNTS as COUNTS
from mmcourse.world.grammar import PLACES, Grammar
from mmcourse.world.grammar import plural as plural
from mmcourse.world.rules import GRID, LETTERS, SPLITS, SignRule, SplitRule, strictest

# noun -> the pictogram's character. Regular plurals only, words that sound and look unlike each other.
PICTOGRAMS = {
    "ant": "🐜", "apple": "🍎", "ball": "⚽", "banana": "🍌", "bear": "🐻", "bee": "🐝", "bell": "🔔",
    "bicycle": "🚲", "bird": "🐦", "boat": "⛵", "book": "📕", "bus": "🚌", "cactus": "🌵", "camera": "📷",
    "candle": "🕯", "car": "🚗", "carrot": "🥕", "castle": "🏰", "cat": "🐱", "cherry": "🍒", "clock": "🕰",
    "cloud": "☁", "cow": "🐮", "crab": "🦀", "crown": "👑", "cup": "☕", "dog": "🐶", "dolphin": "🐬",
    "donut": "🍩", "duck": "🦆", "egg": "🥚", "elephant": "🐘", "fish": "🐟", "flower": "🌻", "frog": "🐸",
    "ghost": "👻", "giraffe": "🦒", "grape": "🍇", "guitar": "🎸", "hammer": "🔨", "hat": "🎩", "heart": "❤",
    "house": "🏠", "key": "🔑", "lemon": "🍋", "lion": "🦁", "moon": "🌙", "mushroom": "🍄", "owl": "🦉",
    "panda": "🐼", "penguin": "🐧", "pizza": "🍕", "rabbit": "🐰", "robot": "🤖", "rocket": "🚀", "snail": "🐌",
    "star": "⭐", "sun": "☀", "tiger": "🐯", "train": "🚂", "tree": "🌲", "turtle": "🐢", "umbrella": "☂",
    "whale": "🐳",
}
BACKGROUNDS = {
    "white": (244, 244, 240), "grey": (150, 152, 158), "red": (226, 88, 80), "orange": (246, 160, 66),
    "yellow": (250, 222, 96), "green": (112, 190, 110), "blue": (108, 164, 232), "purple": (168, 124, 206),
}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OBJECTS_END = 48           # units from the top: objects stand above this line
TRIES = 10_000             # draws until a split counts as empty


@dataclass(frozen=True)
class Group:
    """`count` objects of one kind: one or two on the `left` or on the `right`, three or four everywhere."""
    noun: str
    count: int = 1
    place: str = ""

    def __post_init__(self):
        if self.count not in (1, 2, 3, 4):
            raise ValueError(f"a group has 1 to 4 objects, got {self.count!r}")
        if (self.place in PLACES) != (self.count <= 2) or (self.count > 2 and self.place):
            raise ValueError("one or two objects need place='left' or 'right'; three or four need place=''")


@dataclass(frozen=True)
class Scene:
    """One scene. `shift` (dx, dy) in units (`GRID`) and `scale` move the drawing, not the meaning.

    `background` has a name in the scene's world, or is a colour without one, `#rrggbb`: then the caption is
    silent about it. Whether a world has such a scene is for `World.check` to say.
    """
    groups: tuple[Group, ...]
    background: str = "white"
    sign: str = ""
    shift: tuple[int, int] = (0, 0)
    scale: float = 1.0

    def __post_init__(self):
        if len(self.groups) > 2 or not (self.groups or self.sign):
            raise ValueError(f"a scene has one or two groups, or a sign alone, got {len(self.groups)} groups "
                             f"and {'a' if self.sign else 'no'} sign")
        if len(self.groups) == 2 and [g.place for g in self.groups] != list(PLACES):
            raise ValueError("two groups stand on the left and on the right, in this order")
        if not set(self.sign) <= set(LETTERS):
            raise ValueError(f"a sign has letters A-Z, got {self.sign!r}")


# ---------------------------------------------------------------- the world

@dataclass(frozen=True, eq=False)
class World:
    """A world that a model can learn, and all that follows from it. Worlds made of the same are equal.

    Args:
        pictograms: noun -> the character that is its picture (any emoji that OpenMoji draws).
        backgrounds: name -> red, green, blue, 0 ... 255.
        kinds: how many kinds of object a scene has, each as often as the others; 0: a sign alone.
        counts: how often there are one, two, three, ... (at most four) of the only kind.
        doubles: how often there are two of one of two kinds.
        signs: what signs say and where they stand.
        grammar: how captions are made.
        split: which combinations of noun and background, and which signs, are held out.
        spoken: words that are spoken beside the nouns and backgrounds.
        size: pixels across a picture, a multiple of 32.
    """
    pictograms: dict[str, str]
    backgrounds: dict[str, tuple[int, int, int]]
    kinds: tuple[int, ...] = (1, 2)
    counts: tuple[float, ...] = (0.5, 0.2, 0.15, 0.15)
    doubles: float = 0.3
    signs: SignRule = SignRule()
    grammar: Grammar = Grammar()
    split: SplitRule = SplitRule()
    spoken: tuple[str, ...] = ()
    size: int = 64

    def __post_init__(self):
        check_world(self)

    @cached_property
    def identity(self) -> str:
        """All that the world is made of as one string, for names of cached files too."""
        return hashlib.sha256(json.dumps(asdict(self), ensure_ascii=True).encode()).hexdigest()[:16]

    def __eq__(self, other) -> bool:
        return isinstance(other, World) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    @cached_property
    def nouns(self) -> tuple[str, ...]:
        """The names of what there is to draw."""
        return tuple(self.pictograms)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """What can be spoken: nouns, backgrounds and the words of `spoken`, in alphabetical order."""
        return tuple(sorted({*self.pictograms, *self.backgrounds, *self.spoken}))

    # ---- scenes

    def check(self, scene: Scene) -> None:
        """ValueError that says what of a scene this world does not have."""
        self.colour(scene.background)
        for group in scene.groups:
            if group.noun not in self.pictograms:
                raise ValueError(f"unknown noun {group.noun!r}; the world has: {', '.join(self.nouns)}")
            if group.count > len(self.counts):
                raise ValueError(f"this world has at most {len(self.counts)} of a kind, got {group.count}")
        if len(scene.groups) not in self.kinds:
            raise ValueError(f"a scene of this world has {_either(self.kinds)} kinds of object, "
                             f"got {len(scene.groups)}")
        if scene.sign and not self.has_signs:
            raise ValueError(f"this world has no signs, got {scene.sign!r}")
        if scene.sign and len(scene.sign) not in self.signs.lengths:
            raise ValueError(f"a sign of this world has {_either(self.signs.lengths)} letters A-Z, "
                             f"got {scene.sign!r}")

    @property
    def has_signs(self) -> bool:
        """Whether there are any."""
        return self.signs.share > 0 or 0 in self.kinds

    def colour(self, background: str) -> tuple[int, int, int]:
        """Red, green and blue, 0 ... 255, of a named background or a `#rrggbb` colour; else ValueError."""
        if background in self.backgrounds:
            return self.backgrounds[background]
        if re.fullmatch("#[0-9a-f]{6}", background):
            return tuple(bytes.fromhex(background[1:]))
        raise ValueError(f"unknown background {background!r}; the world has: {', '.join(self.backgrounds)}, "
                         "and colours as '#rrggbb'")

    def nearest_background(self, background: str) -> str:
        """The named background that a background looks most like (a named one looks like itself)."""
        def distance(name: str) -> int:
            return sum((a - b) ** 2 for a, b in zip(colour, self.backgrounds[name]))
        colour = self.colour(background)
        return min(self.backgrounds, key=distance)

    def unnamed_background(self, rng: np.random.Generator) -> str:
        """A random colour that none of the named backgrounds comes near, as `#rrggbb`."""
        while True:
            colour = rng.integers(40, 256, 3)
            if all(np.abs(colour - named).max() > 24 for named in self.backgrounds.values()):
                return "#" + bytes(colour.tolist()).hex()

    def sample(self, rng: np.random.Generator, split: str = "train", jitter: int = 0,
               kinds: int | None = None, unnamed: float = 0.0) -> Scene:
        """A random scene.

        Args:
            rng: numpy generator; the same state gives the same scene.
            split: `train` (nothing held out), `held-out` (a pair of noun and background is held out, and so
                is the sign), `validation` or `test` (held out, and both of that part), `any`.
            jitter: the drawing moves by up to this many units each way, and its scale by 4 % for each.
            kinds: how many kinds of object; random if None.
            unnamed: how often the background is a colour without a name.
        """
        if split not in SPLITS:
            raise ValueError(f"split is one of {', '.join(SPLITS)}, got {split!r}")
        if kinds is not None and kinds not in self.kinds:
            raise ValueError(f"a scene of this world has {_either(self.kinds)} kinds of object, "
                             f"got kinds={kinds!r}")
        background, nouns = _until(lambda: self._sample_pairs(rng, kinds, unnamed), f"pair in {split!r}",
                                   lambda it: not it[1] or self._pairs_split(*it) in SPLITS[split])
        groups, sign = self._sample_groups(rng, nouns), ""
        if not groups or rng.random() < self.signs.share:
            sign = _until(lambda: self.signs.sample(rng), f"sign in {split!r}",
                          lambda word: self.sign_split(word) in SPLITS[split])
        shift = tuple(int(v) for v in rng.integers(-jitter, jitter + 1, size=2)) if jitter else (0, 0)
        scale = float(1 + 0.04 * rng.uniform(-jitter, jitter)) if jitter else 1.0
        return Scene(groups, background, sign, shift, scale)

    def _sample_pairs(self, rng: np.random.Generator, kinds: int | None,
                      unnamed: float) -> tuple[str, list[str]]:
        """A background and the nouns before it, of any split."""
        background = list(self.backgrounds)[rng.integers(len(self.backgrounds))]
        n = self.kinds[rng.integers(len(self.kinds))] if kinds is None else kinds
        if unnamed and rng.random() < unnamed:
            background = self.unnamed_background(rng)
        return background, [self.nouns[i] for i in rng.choice(len(self.nouns), n, replace=False)] if n else []

    def _sample_groups(self, rng: np.random.Generator, nouns: list[str]) -> tuple[Group, ...]:
        """How many there are of each and where they stand."""
        if len(nouns) == 1:
            count = 1 + int(rng.choice(len(self.counts), p=self.counts))
            return (Group(nouns[0], count, PLACES[rng.integers(2)] if count <= 2 else ""),)
        return tuple(Group(noun, 1 + int(rng.random() < self.doubles), place)
                     for noun, place in zip(nouns, PLACES))

    # ---- splits

    def pair_split(self, noun: str, background: str) -> str:
        """`train`, `validation` or `test`: the split of a noun on a named background."""
        return self.split.of("pair", noun, background)

    def sign_split(self, word: str) -> str:
        """The split of a sign's word. No word (``""``) is in `train`."""
        return self.split.of("sign", word) if word else "train"

    def _pairs_split(self, background: str, nouns) -> str:
        like = self.nearest_background(background)
        return strictest(self.pair_split(noun, like) for noun in nouns)

    def split_of(self, scene: Scene) -> str:
        """`train`, `validation` or `test`, by what is `strictest` in the scene.

        A background without a name counts as the named one that it looks like: what is held out on blue is
        held out on sky blue.
        """
        self.check(scene)
        pairs = self._pairs_split(scene.background, [group.noun for group in scene.groups])
        return strictest([pairs, self.sign_split(scene.sign)])

    def is_held_out(self, scene: Scene) -> bool:
        """True if anything in the scene is held out. Nothing trains on such a scene."""
        return self.split_of(scene) != "train"

    # ---- words, pictures, speech

    def describe(self, group: Group) -> str:
        """A group in words: `a cat on the left`, `two suns on the right`, `four dogs`."""
        return self.grammar.describe(group)

    def caption(self, scene: Scene) -> str:
        """The full caption: everything that the picture shows. A sign is spelled, one letter a word.

        >>> WORLD.caption(Scene((Group("cat", 1, "left"), Group("sun", 2, "right")), "blue", "KITE"))
        'a cat on the left, two suns on the right, blue ground, sign K I T E'
        """
        self.check(scene)
        named = scene.background if scene.background in self.backgrounds else ""
        return self.grammar.caption(scene.groups, named, scene.sign)

    def parse(self, text: str) -> Scene:
        """The scene that a full caption describes: the inverse of `caption`. ValueError if it is not one."""
        groups, background, sign = self.grammar.parse(text, self.nouns)
        scene = Scene(tuple(Group(*group) for group in groups), background, sign)
        if self.caption(scene) != text.strip():
            raise ValueError(f"not a caption of this world: {text!r}")
        return scene

    def draw(self, scenes, size: int | None = None):
        """The pictures of scenes, a torch tensor (B, 3, size, size) in [0, 1]; None: the world's size."""
        from mmcourse.world.pictures import draw_batch
        return draw_batch(scenes, size, self)

    def speech(self, progress: bool = True):
        """Each of `words` in every voice, a `SpeechCorpus`: made at first use, then read from the cache."""
        from mmcourse.world.speech import load_speech
        return load_speech(progress, self.words)


def check_world(world: World) -> None:
    """ValueError that says why there can be no such world."""
    nouns, rule = world.nouns, world.signs
    colours = world.backgrounds.values()
    if not colours or any(len(rgb) != 3 or not 0 <= min(rgb) <= max(rgb) <= 255 for rgb in colours):
        raise ValueError("a world has one background at least, each a name with red, green, blue of 0 to 255")
    if not world.kinds or not set(world.kinds) <= {0, 1, 2} or len(nouns) < max(world.kinds):
        raise ValueError(f"`kinds` are 0, 1 or 2, and there are as many nouns at least; got {world.kinds} "
                         f"and {len(nouns)} nouns")
    names = [name for noun in nouns for name in {noun, world.grammar.plural(noun)}] + list(world.backgrounds)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{', '.join(twice)}: a noun, a plural and a background must not share a name; "
                         "give irregular plurals in Grammar(plurals={...})")
    if not 1 <= len(world.counts) <= 4 or abs(sum(world.counts) - 1) > 1e-9:
        raise ValueError(f"`counts` are one to four shares that sum to 1, got {world.counts}")
    if 2 in world.kinds and world.doubles and len(world.counts) < 2:
        raise ValueError("a world with at most one of each kind has `doubles=0`")
    if world.size < 32 or world.size % 32 or world.has_signs and rule.letter * world.size % GRID:
        raise ValueError(f"a picture is 32, 64, 96, ... pixels wide, got {world.size}, and so that a letter "
                         f"({rule.letter} {GRID}ths of that) has whole pixels")
    if world.has_signs and max(world.kinds) and rule.top < OBJECTS_END:
        raise ValueError(f"signs stand under the objects: `top` is {OBJECTS_END} or more, got {rule.top}")
    if world.has_signs and rule.top == 0 and 2 * rule.letter == GRID:
        raise ValueError("a sign that fills the whole picture leaves nothing of its background: make its "
                         "letters smaller")


def _either(numbers) -> str:
    """`1 or 2`; `3, 4 or 5`."""
    *most, last = map(str, sorted(numbers))
    return f"{', '.join(most)} or {last}" if most else last


def _until(draw: Callable, what: str, fits: Callable):
    """Draw until it fits; ValueError if it never does."""
    for _ in range(TRIES):
        if fits(drawn := draw()):
            return drawn
    raise ValueError(f"this world seems to have no {what}: choose another `salt` or a larger share in its "
                     "SplitRule")


# ---------------------------------------------------------------- the course's world, and its plain names

WORLD = World(PICTOGRAMS, BACKGROUNDS, spoken=(*DIGITS, *PLACES))
NOUNS, WORDS = WORLD.nouns, WORLD.words
SIGN_LENGTHS = WORLD.signs.lengths

sample_scene, caption, parse_caption, describe = WORLD.sample, WORLD.caption, WORLD.parse, WORLD.describe
is_held_out, split_of = WORLD.is_held_out, WORLD.split_of
background_colour, nearest_background = WORLD.colour, WORLD.nearest_background


def held_out_pair(noun: str, background: str) -> bool:
    """True for the one (noun, background) pair in ten that nothing trains on."""
    return WORLD.pair_split(noun, background) != "train"


def held_out_sign(word: str) -> bool:
    """True for the one sign word in ten that nothing trains on. No word (``""``) is never held out."""
    return WORLD.sign_split(word) != "train"


def scene_bits(scene: Scene, split: str = "train", world: World = WORLD) -> float:
    """What a scene is worth: -log2 of the probability that `world.sample(rng, split)` draws it, jitter apart.

    Its mean over many draws is the entropy of the world: no predictor of captions or pictures needs less.
    Signs of random letters are taken as held out in the share of the SplitRule exactly; the hash makes it so
    to a fraction of a percent.
    """
    groups, k, rule = scene.groups, len(world.nouns), world.signs
    p = 1 / len(world.backgrounds) / len(world.kinds) / _accepted(world, split)
    if len(groups) == 1:
        p *= world.counts[groups[0].count - 1] / k / (2 if groups[0].place else 1)
    elif groups:
        p *= math.prod(1 - world.doubles if group.count == 1 else world.doubles for group in groups)
        p /= k * (k - 1)
    if groups:
        p *= rule.share if scene.sign else 1 - rule.share
    if scene.sign and rule.words:
        p /= sum(world.sign_split(word) in SPLITS[split] for word in rule.words)
    elif scene.sign:
        held_out, test = world.split.held_out, world.split.test
        shares = {"train": 1 - held_out, "validation": held_out * (1 - test), "test": held_out * test}
        p *= len(LETTERS) ** -len(scene.sign) / len(rule.lengths)
        p /= sum(shares[part] for part in SPLITS[split])
    return -math.log2(p)


@lru_cache(maxsize=16)
def _accepted(world: World, split: str) -> float:
    """The share of draws (background, nouns) that `World.sample` keeps; a sign alone has no pair: kept."""
    def share_within(*splits: str) -> float:
        found, k = 0.0, len(world.nouns)                     # draws all of whose pairs are in these splits
        for background in world.backgrounds:
            m = sum(world.pair_split(noun, background) in splits for noun in world.nouns)
            found += sum((1, m / max(k, 1), m * (m - 1) / max(k * (k - 1), 1))[n] for n in world.kinds)
        return found / len(world.backgrounds) / len(world.kinds)
    alone, train, known = share_within(), share_within("train"), share_within("train", "validation")
    kept = {"train": train, "validation": known - train + alone, "test": 1 - known + alone,
            "held-out": 1 - train + alone, "any": 1.0}
    return kept[split]


def held_out_voice(voice: int) -> bool:
    """True for the voices that nothing trains on: every sixth one of `mmcourse.world.speech.VOICES`."""
    return voice % 6 == 5
