"""Instructions that change one thing in a picture: `make the ground green`, `replace the cat with a dog`, `remove the sign`."""
from dataclasses import dataclass, replace

import numpy as np

from mmcourse.world.scene import (
    BACKGROUNDS,
    LETTERS,
    NOUNS,
    PLACES,
    SIGN_LENGTHS,
    Group,
    Scene,
    describe,
    is_held_out,
    plural,
    sample_scene,
)

KINDS = ("ground", "noun", "sign", "add", "remove", "move")


@dataclass(frozen=True)
class Edit:
    """A scene, what shall change in it, in words, and the scene afterwards. `kind` is one of `KINDS`."""
    kind: str
    before: Scene
    instruction: str
    after: Scene


def _the(group: Group) -> str:
    return f"the {group.noun if group.count == 1 else plural(group.noun)}"


def _some(group: Group) -> str:
    return describe(Group(group.noun, 1, "left")).removesuffix(" on the left") if group.count == 1 else plural(group.noun)


def _word(rng: np.random.Generator) -> str:
    return "".join(LETTERS[i] for i in rng.integers(26, size=rng.choice(SIGN_LENGTHS)))


def possible(scene: Scene) -> tuple[str, ...]:
    """The kinds of edit that a scene allows."""
    one_side = len(scene.groups) == 1 and bool(scene.groups[0].place)
    return ("ground", "noun", "sign", *(("add", "move") if one_side else ()), *(("remove",) if len(scene.groups) == 2 else ()))


def make_edit(scene: Scene, kind: str, rng: np.random.Generator) -> Edit:
    """One random edit of that kind. ValueError if the scene does not allow it (see `possible`)."""
    if kind not in possible(scene):
        raise ValueError(f"{kind!r} does not fit this scene; what does: {', '.join(possible(scene))}")
    groups = list(scene.groups)
    i = int(rng.integers(len(groups)))
    others = [noun for noun in NOUNS if noun not in [g.noun for g in groups]]
    if kind == "ground":
        background = str(rng.choice([g for g in BACKGROUNDS if g != scene.background]))
        return Edit(kind, scene, f"make the ground {background}", replace(scene, background=background))
    if kind == "sign":
        word = "" if scene.sign and rng.random() < 0.4 else _word(rng)
        text = f"make the sign {' '.join(word)}" if word else "remove the sign"
        return Edit(kind, scene, text, replace(scene, sign=word))
    if kind == "noun":
        new = replace(groups[i], noun=str(rng.choice(others)))
        text = f"replace {_the(groups[i])} with {_some(new)}"
        groups[i] = new
    elif kind == "add":
        place = PLACES[1 - PLACES.index(groups[0].place)]
        new = Group(str(rng.choice(others)), 1 + int(rng.random() < 0.3), place)
        text = f"add {describe(new)}"
        groups.insert(PLACES.index(place), new)
    elif kind == "remove":
        text = f"remove {_the(groups[i])}"
        del groups[i]
    else:
        place = PLACES[1 - PLACES.index(groups[0].place)]
        text = f"move {_the(groups[0])} to the {place}"
        groups[0] = replace(groups[0], place=place)
    return Edit(kind, scene, text, replace(scene, groups=tuple(groups)))


def sample_edit(rng: np.random.Generator, split: str = "train", kind: str | None = None) -> Edit:
    """A random edit.

    Args:
        split: `train`: nothing that is held out is in either picture; `held-out`: the answer shows a held-out combination,
            so that it can be composed, not remembered.
        kind: one of `KINDS`; random if None.
    """
    if split not in ("train", "held-out"):
        raise ValueError(f"split is 'train' or 'held-out', got {split!r}")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, got {kind!r}")
    while True:
        scene = sample_scene(rng, "train" if split == "train" else "any")
        kinds = possible(scene)
        if kind is not None and kind not in kinds:
            continue
        edit = make_edit(scene, kind or str(rng.choice(kinds)), rng)
        if split == "train" and not is_held_out(edit.after) or split == "held-out" and is_held_out(edit.after):
            return edit
