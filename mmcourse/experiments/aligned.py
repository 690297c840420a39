"""Rows in which every scene's tokens stand at the same places (chapter 13): what is found at a place can be compared and
exchanged between scenes."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mmcourse.vocabulary import CLOSE, OPEN, Segment, Vocabulary
from mmcourse.world.pictures import draw_batch
from mmcourse.world.rules import SPLITS
from mmcourse.world.scene import BACKGROUNDS, NOUNS, PLACES, WORLD, Group, Scene

SLOTS = ("count", "noun", "place", "ground")
SIGN_LENGTH = 3
ODD_PLURALS = ("bus", "cactus", "cherry", "fish")      # two tokens: their captions would be longer


def one_kind(rng: np.random.Generator, n: int, split: str = "validation", sign: bool = False,
             counts: Sequence[int] = (1, 2)) -> list[Scene]:
    """`n` scenes of one kind of thing, one or two of it, on the left or on the right; with `sign` a sign of three letters. Each
    of its caption's words is a token, and stands at the same place in every caption."""
    scenes = []
    while len(scenes) < n:
        noun, ground = rng.choice(NOUNS), str(rng.choice(list(BACKGROUNDS)))
        group = Group(str(noun), int(rng.choice(counts)), str(rng.choice(PLACES)))
        letters = "".join(rng.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), SIGN_LENGTH)) if sign else ""
        scene = Scene((group,), ground, letters)
        if WORLD.split_of(Scene((group,), ground)) in SPLITS[split] and not (group.count == 2 and noun in ODD_PLURALS):
            scenes.append(scene)
    return scenes


@dataclass(frozen=True)
class Rows:
    """Scenes as ids (N, T), all of one shape.

    Args:
        says: slot (count, noun, place, ground, letter 1, ...) -> the place at which the model says what is there: its answer is
            the token after it.
        picture: the places of the picture's 64 tokens. caption: those of the caption's tokens.
    """
    scenes: list[Scene]
    ids: torch.Tensor
    says: dict[str, int]
    picture: range
    caption: range

    def right(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits (N, T, V) -> for each slot whether the likeliest token is the true one: (N,)."""
        return {slot: logits[:, place].argmax(-1) == self.ids[:, place + 1] for slot, place in self.says.items()}

    def shares(self, logits: torch.Tensor) -> dict[str, float]:
        """The same as shares of the rows."""
        return {slot: right.double().mean().item() for slot, right in self.right(logits).items()}


def donors(scenes: Sequence[Scene]) -> list[int]:
    """For each scene another one to take states from: the next that has as many things, so that a noun is asked for in the same
    number. ValueError if a scene is the only one with so many."""
    found = []
    for i, scene in enumerate(scenes):
        alike = [j for j in range(i + 1, i + len(scenes)) if scenes[j % len(scenes)].groups[0].count == scene.groups[0].count]
        if not alike:
            raise ValueError(f"no other scene has {scene.groups[0].count} things: take more scenes")
        found.append(alike[0] % len(scenes))
    return found


def caption_places(first: int, sign: bool) -> dict[str, int]:
    """Where the words of `a cat on the left, blue ground, sign K I T` stand if `a` stands at `first`: slot -> place."""
    places = {"count": first, "noun": first + 1, "place": first + 4, "ground": first + 6}
    return places | ({f"letter {i + 1}": first + 10 + i for i in range(SIGN_LENGTH)} if sign else {})


def described(bpe, vqvae, vocabulary: Vocabulary, scenes: Sequence[Scene]) -> Rows:
    """`<image> 64 tokens </image> <text> caption </text>`: the model reads a picture and says what is there."""
    texts, images = _texts(bpe, scenes), _images(vqvae, scenes)
    ids = _stacked([vocabulary.pack([image, text]) for image, text in zip(images, texts)])
    first = vocabulary.image_tokens + 3
    assert (ids[:, first - 1] == OPEN["text"]).all()
    says = {slot: place - 1 for slot, place in caption_places(first, bool(scenes[0].sign)).items()}
    return Rows(list(scenes), ids, says, range(1, first - 2), range(first, ids.shape[1] - 1))


def drawn(bpe, vqvae, vocabulary: Vocabulary, scenes: Sequence[Scene]) -> Rows:
    """`<text> caption </text> <image> 64 tokens </image>`: the model reads a caption and draws. No slots: a picture says each of
    them in many places."""
    texts, images = _texts(bpe, scenes), _images(vqvae, scenes)
    ids = _stacked([vocabulary.pack([text, image]) for image, text in zip(images, texts)])
    first = len(texts[0].ids) + 3
    assert (ids[:, first - 2] == CLOSE["text"]).all()
    return Rows(list(scenes), ids, {}, range(first, ids.shape[1] - 1), range(1, first - 2))


def _texts(bpe, scenes: Sequence[Scene]) -> list[Segment]:
    return [Segment("text", tuple(bpe.encode(" " + WORLD.caption(scene)))) for scene in scenes]


def _images(vqvae, scenes: Sequence[Scene]) -> list[Segment]:
    rows = vqvae.encode(draw_batch(list(scenes))).flatten(1).tolist()                   # (N, 8, 8) -> N x 64
    return [Segment("image", tuple(row)) for row in rows]


def _stacked(rows: list[list[int]]) -> torch.Tensor:
    if len({len(row) for row in rows}) > 1:
        raise ValueError("the scenes' captions have different lengths: take scenes of `one_kind`, all with a sign or none")
    return torch.tensor(rows)
