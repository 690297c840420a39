"""Instructions that change one thing: `make the ground green`, `replace the cat with a dog`, ..."""
from dataclasses import dataclass, replace

import numpy as np

from mmcourse.world.scene import PLACES, SPLITS, TRIES, WORLD, Group, Scene, World

# "ground" is a new background: recorded results and the model's captions call it that.
KINDS = ("ground", "noun", "sign", "add", "remove", "move")


@dataclass(frozen=True)
class Edit:
    """A scene, what shall change in it, in words, and the scene afterwards. `kind` is one of `KINDS`."""
    kind: str
    before: Scene
    instruction: str
    after: Scene


def _the(group: Group, world: World) -> str:
    return f"the {group.noun if group.count == 1 else world.grammar.plural(group.noun)}"


def _some(group: Group, world: World) -> str:
    if group.count > 1:
        return world.grammar.plural(group.noun)
    return world.describe(Group(group.noun, 1, "left")).removesuffix(" on the left")


def possible(scene: Scene, world: World = WORLD) -> tuple[str, ...]:
    """The kinds of edit that a scene allows: its world has the scene afterwards too."""
    n, one_side = len(scene.groups), len(scene.groups) == 1 and bool(scene.groups[0].place)
    more = len(world.nouns) > n                              # there is a noun that is not in the scene
    fits = {
        "ground": len(world.backgrounds) > 1,
        "noun": n > 0 and more,
        "sign": world.has_signs,
        "add": one_side and more and 2 in world.kinds,
        "remove": n == 2 and 1 in world.kinds,
        "move": one_side,
    }
    return tuple(kind for kind in KINDS if fits[kind])


def make_edit(scene: Scene, kind: str, rng: np.random.Generator, world: World = WORLD) -> Edit:
    """One random edit of that kind. ValueError if the scene does not allow it (see `possible`)."""
    if kind not in possible(scene, world):
        raise ValueError(f"{kind!r} does not fit this scene; what does: {', '.join(possible(scene, world))}")
    groups = list(scene.groups)
    i = int(rng.integers(len(groups))) if groups else 0
    others = [noun for noun in world.nouns if noun not in [g.noun for g in groups]]
    if kind == "ground":
        background = str(rng.choice([name for name in world.backgrounds if name != scene.background]))
        text = f"make the {world.grammar.background} {background}"
        return Edit(kind, scene, text, replace(scene, background=background))
    if kind == "sign":
        word = "" if groups and scene.sign and rng.random() < 0.4 else world.signs.sample(rng)
        name = world.grammar.sign
        text = f"make the {name} {world.grammar.spell(word)}" if word else f"remove the {name}"
        return Edit(kind, scene, text, replace(scene, sign=word))
    if kind == "noun":
        new = replace(groups[i], noun=str(rng.choice(others)))
        text = f"replace {_the(groups[i], world)} with {_some(new, world)}"
        groups[i] = new
    elif kind == "add":
        place = PLACES[1 - PLACES.index(groups[0].place)]
        new = Group(str(rng.choice(others)), 1 + int(rng.random() < world.doubles), place)
        text = f"add {world.describe(new)}"
        groups.insert(PLACES.index(place), new)
    elif kind == "remove":
        text = f"remove {_the(groups[i], world)}"
        del groups[i]
    else:
        place = PLACES[1 - PLACES.index(groups[0].place)]
        text = f"move {_the(groups[0], world)} to the {place}"
        groups[0] = replace(groups[0], place=place)
    return Edit(kind, scene, text, replace(scene, groups=tuple(groups)))


# Of which split the scene before may be. A question of the validation split shows nothing of the test split.
BEFORE = {
    "train": ("train",),
    "validation": ("train", "validation"),
    "test": ("train", "validation", "test"),
    "held-out": ("train", "validation", "test"),
}


def sample_edit(rng: np.random.Generator, split: str = "train", kind: str | None = None,
                world: World = WORLD) -> Edit:
    """A random edit.

    Args:
        split: `train`: nothing that is held out is in either picture; `held-out`, `validation`, `test`: the
            answer shows a held-out combination (of that part), so that it can be composed, not remembered.
        kind: one of `KINDS`; random if None.
    """
    if split not in BEFORE:
        raise ValueError(f"split is one of {', '.join(BEFORE)}, got {split!r}")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, got {kind!r}")
    for _ in range(TRIES):
        scene = world.sample(rng, "train" if split == "train" else "any")
        kinds = possible(scene, world)
        if kind not in kinds if kind else not kinds:
            continue
        edit = make_edit(scene, kind or str(rng.choice(kinds)), rng, world)
        if world.split_of(edit.after) in SPLITS[split] and world.split_of(scene) in BEFORE[split]:
            return edit
    raise ValueError(f"no edit of the kind {kind!r} in the split {split!r} of this world in {TRIES:,} tries")
