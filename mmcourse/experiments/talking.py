"""What a model makes of conversations: every turn is asked about the true picture of now, and marked.

It describes what it sees and writes down what it hears, decides of which kind its answer is and what it says, and draws it: all
in one try, the likeliest each time (`mmcourse.chat`). Of a spoken answer the words are marked, not the voice.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmcourse.assistant import painted
from mmcourse.chat import after_picture, draw_or_speak, perceive, picture_of_now, reply
from mmcourse.experiments.conversations import Conversations, Talks, modality, told
from mmcourse.judges import PictureReader
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import Segment
from mmcourse.world.dialogues import UNKNOWN, Turn


@dataclass
class Asked:
    """A turn that was asked, the answer as it stands in the conversation, and whether it is right."""
    turn: Turn
    answer: list[Segment]
    right: bool = False

    @property
    def groups(self) -> list[str]:
        """The rows that it belongs to."""
        turn = self.turn
        if turn.kind == "refuse":
            return ["outside", f"outside: {turn.why}"]
        how = "spoken" if any(part.kind == "spoken" for part in turn.given) else "typed"
        return ["inside", turn.kind, f"{turn.kind}: {how}{', answered aloud' if turn.answer.kind == 'spoken' else ''}"]


def ask_turns(model: Transformer, data: Conversations, seed: int = 0) -> list[Asked]:
    """Every turn of the conversations, about the true picture of now."""
    words, turns, before = Talks(data.bpe, data.vocabulary, data.split, len(data.talks)), [], []
    for talk in data.talks:
        now: list[Segment] = []
        for turn, (seen, answer) in zip(talk, words.turns(talk)):
            turns.append(turn)
            before.append(now)
            now = picture_of_now(now, seen, answer)
    return ask(model, data, turns, before, np.random.default_rng(seed))[0]


def ask_through(model: Transformer, data: Conversations, seed: int = 0) -> list[list[Asked]]:
    """Each conversation from its first turn to its last, about the pictures that the model drew or saw itself."""
    rng, out = np.random.default_rng(seed), [[] for _ in data.talks]
    now: list[list[Segment]] = [[] for _ in data.talks]
    for number in range(max(map(len, data.talks), default=0)):
        at = [i for i, talk in enumerate(data.talks) if number < len(talk)]
        asked, after = ask(model, data, [data.talks[i][number] for i in at], [now[i] for i in at], rng)
        for i, each, picture in zip(at, asked, after):
            out[i].append(each)
            now[i] = picture
    return out


def ask(model: Transformer, data: Conversations, turns: Sequence[Turn], before: Sequence[list[Segment]],
        rng: np.random.Generator) -> tuple[list[Asked], list[list[Segment]]]:
    """Turns asked `before` each of which a picture is talked about ([]: none), and marked; and the picture after each."""
    given = [data.given(turn, rng) for turn in turns]
    seen = iter(perceive(model, data.vocabulary, [segment for parts in given for segment in parts]))
    asked = [[segment for _ in parts for segment in next(seen)] for parts in given]
    said = reply(model, data.vocabulary, [after_picture(now, parts) for now, parts in zip(before, asked, strict=True)])
    found = marked(model, data, [Asked(turn, answer) for turn, answer in zip(turns, said)], PictureReader())
    return found, [picture_of_now(*each) for each in zip(before, asked, said, strict=True)]


def marked(model: Transformer, data: Conversations, asked: list[Asked], reader: PictureReader) -> list[Asked]:
    """Which answers are right: words to the letter, of a picture the whole scene, as the reader sees it once it is drawn."""
    same = [each for each in asked if each.answer[0].modality == modality(each.turn.answer)]
    drawn = [each for each in same if each.turn.answer.kind == "image"]
    pictures = painted(data.vqvae, draw_or_speak(model, data.vocabulary, [each.answer for each in drawn])) if drawn else []
    scenes = dict(zip(map(id, drawn), reader.read(pictures) if drawn else []))
    for each in same:
        words = data.bpe.decode(each.answer[-1].ids).strip()
        each.right = (scenes[id(each)] == each.turn.answer.value if id(each) in scenes else words == told(each.turn.answer))
    return asked


def refused(data: Conversations, asked: Asked) -> bool:
    """Whether the answer is that it does not know."""
    return asked.answer[0].modality == "text" and data.bpe.decode(asked.answer[-1].ids).strip() == UNKNOWN


def rows(data: Conversations, asked: Sequence[Asked]) -> dict[str, dict]:
    """By group: how many turns, of how many the answer is right, of the right kind, and a refusal."""
    out: dict[str, dict] = {}
    for each in asked:
        for group in each.groups:
            row = out.setdefault(group, {"n": 0, "right": 0, "kind": 0, "refused": 0})
            row["n"] += 1
            row["right"] += each.right
            row["kind"] += each.answer[0].modality == modality(each.turn.answer)
            row["refused"] += refused(data, each)
    return dict(sorted(out.items()))
