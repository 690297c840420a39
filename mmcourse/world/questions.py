"""Questions about a scene whose answers are exact: `how many cats are there?`, `what does the sign say?`, ..."""
from dataclasses import dataclass

import numpy as np

from mmcourse.world.grammar import COUNTS
from mmcourse.world.scene import PLACES, WORLD, Group, Scene, World

# "place" asks for a thing's place, "what" for the things at a place.
KINDS = ("count", "place", "what", "sign", "exists", "ground")
ABSENT = 0.25               # how often "count" and "place" ask about something that is not there


@dataclass(frozen=True)
class Question:
    """A question in words and its only right answer. `kind` is one of `KINDS`."""
    kind: str
    text: str
    answer: str


def possible(scene: Scene, world: World = WORLD) -> tuple[str, ...]:
    """The kinds of question that a scene allows: those that have one plain answer.

    Three or four things stand everywhere, so nobody asks where they are or what is at one side; a ground
    without a name cannot be named.
    """
    things, placed = bool(scene.groups), all(group.place for group in scene.groups)
    fits = {
        "count": bool(world.nouns),
        "place": things and placed,
        "what": things and placed,
        "sign": world.has_signs,
        "exists": things and len(world.nouns) > len(scene.groups),
        "ground": scene.background in world.backgrounds,
    }
    return tuple(kind for kind in KINDS if fits[kind])


def sample_question(rng: np.random.Generator, scene: Scene, kind: str | None = None,
                    world: World = WORLD) -> Question:
    """A random question about a scene.

    Args:
        rng: numpy generator; the same state gives the same question.
        kind: one of `KINDS`; random among those that fit if None. ValueError if it does not fit the scene
            (see `possible`). `exists` is answered `yes` and `no` equally often.
    """
    kinds = possible(scene, world)
    if kind is not None and kind not in kinds:
        raise ValueError(f"{kind!r} does not fit this scene; what does: {', '.join(kinds)}")
    kind = str(rng.choice(kinds)) if kind is None else kind
    wordings, answer = ASKED[kind](rng, scene, world)
    return Question(kind, wordings[rng.integers(len(wordings))], answer)


# Each: rng, scene, world -> the wordings of the question, its answer.

def _count(rng: np.random.Generator, scene: Scene, world: World) -> tuple[tuple[str, ...], str]:
    group = None if not scene.groups or rng.random() < ABSENT else scene.groups[rng.integers(len(scene.groups))]
    if group is None and not _absent(scene, world):           # a world of one noun: it is all that can be asked for
        group = scene.groups[0]
    nouns = world.grammar.plural(group.noun if group else _other(rng, scene, world))
    return ((f"how many {nouns} are there?", f"how many {nouns} do you see?"),
            COUNTS[group.count - 1] if group else "none")


def _place(rng: np.random.Generator, scene: Scene, world: World) -> tuple[tuple[str, ...], str]:
    if _absent(scene, world) and rng.random() < ABSENT:
        noun = _other(rng, scene, world)
        some = world.grammar.describe(Group(noun, 1, PLACES[0])).split(" ")[0]          # a or an
        return ((f"where is the {noun}?", f"where do you see {some} {noun}?"), f"there is no {noun}")
    group = scene.groups[rng.integers(len(scene.groups))]
    name = group.noun if group.count == 1 else world.grammar.plural(group.noun)
    some = _thing(group, world).split(" ")[0]                                           # a, an or two
    verb = "is" if group.count == 1 else "are"
    return (f"where {verb} the {name}?", f"where do you see {some} {name}?"), f"on the {group.place}"


def _what(rng: np.random.Generator, scene: Scene, world: World) -> tuple[tuple[str, ...], str]:
    place = PLACES[rng.integers(len(PLACES))]
    there = [group for group in scene.groups if group.place == place]
    return ((f"what is on the {place}?", f"what do you see on the {place}?"),
            _thing(there[0], world) if there else "nothing")


def _sign(rng: np.random.Generator, scene: Scene, world: World) -> tuple[tuple[str, ...], str]:
    name = world.grammar.sign
    return ((f"what does the {name} say?", f"what is written on the {name}?"),
            world.grammar.spell(scene.sign) if scene.sign else f"there is no {name}")


def _exists(rng: np.random.Generator, scene: Scene, world: World) -> tuple[tuple[str, ...], str]:
    yes = bool(rng.random() < 0.5)
    noun = scene.groups[rng.integers(len(scene.groups))].noun if yes else _other(rng, scene, world)
    # In the singular, however many there are: a plural in the question would give the answer away.
    thing = _thing(Group(noun, 1, PLACES[0]), world)
    return (f"is there {thing}?", f"do you see {thing}?"), "yes" if yes else "no"


def _ground(rng: np.random.Generator, scene: Scene, world: World) -> tuple[tuple[str, ...], str]:
    name = world.grammar.background
    return (f"what colour is the {name}?", f"which colour does the {name} have?"), scene.background


ASKED = {"count": _count, "place": _place, "what": _what, "sign": _sign, "exists": _exists, "ground": _ground}


def _thing(group: Group, world: World) -> str:
    """A group in words without its place: `two cats`."""
    return world.describe(group).removesuffix(f" on the {group.place}")


def _absent(scene: Scene, world: World) -> list[str]:
    """The nouns that are not in the scene."""
    there = {group.noun for group in scene.groups}
    return [noun for noun in world.nouns if noun not in there]


def _other(rng: np.random.Generator, scene: Scene, world: World) -> str:
    """A noun that is not in the scene."""
    absent = _absent(scene, world)
    return absent[rng.integers(len(absent))]
