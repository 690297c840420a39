"""Conversations of one to four turns, without tokens: what is given, and the one right answer.

Draw, change, ask, describe, name, write down, say; typed or spoken; and `I do not know` for what is not of the world.
The rules by which a user is understood:

- A request that begins with `tell me: ` is answered by voice. `say cat` says `cat`. All else that asks is answered in
  text, and what asks for a picture or a change gets a picture.
- What a request to draw does not name is not there: no sign, and the ground is the world's first (white).
- A question, an instruction and `describe it` are about the picture that was shown or drawn last.
- What is said after `write down what I say` is written down, and so is a single word that comes alone; any other
  phrase that is spoken is a request, like one that is typed.
- A thing that the world has, but the picture has not, is answered: `none`, `no`, `there is no dog`. What is not of
  the world is refused: `UNKNOWN`.
"""
import re
from dataclasses import dataclass

import numpy as np

from mmcourse.world import edits, questions
from mmcourse.world.edits import BEFORE, Edit, make_edit, sample_edit
from mmcourse.world.outside import (
    OUTSIDE_SPLITS,
    PICTURES,
    SOUNDS,
    UNANSWERABLE,
    check_outside_split,
    unknown_words,
)
from mmcourse.world.scene import PLACES, TRIES, WORLD, Group, Scene, World

UNKNOWN = "I do not know"
ALOUD = "tell me: "                 # what such a request asks for is spoken
WRITE = "write down what I say"
DESCRIBE = ("describe it", "describe the picture", "what is in the picture?")
NAME = ("name it", "what is it?")
# How often each kind of turn comes.
KINDS = {"draw": 0.2, "change": 0.2, "ask": 0.22, "describe": 0.05, "name": 0.06, "write": 0.08, "say": 0.07,
         "refuse": 0.12}
# Of the refusals. `no picture` (to be asked about) comes only while there is none.
REFUSALS = {"photograph": 0.22, "noise picture": 0.08, "plain picture": 0.08, "silence": 0.08, "noise": 0.1,
            "unknown word": 0.22, "no picture": 0.12, "unanswerable": 0.1}
TURNS = (0.3, 0.25, 0.25, 0.2)      # how often a conversation has one, two, three, four
SPOKEN = 0.35                       # how often a request that can be spoken is spoken
ANSWERED_ALOUD = 0.3                # how often the answer is wanted by voice, if it can be
SHOWN = 0.2                         # how often another picture is shown though there is one
LONGEST_REQUEST = 1.9               # seconds by `seconds`: so nothing reaches the 3 s at which a clip is cut, ...
LONGEST_ANSWER = 1.15               # ... and no voice needs more than the 1.9 s that an answer may have


@dataclass(frozen=True)
class Part:
    """Something given or answered. `kind`: `text` or `spoken` (value: a str), `image` (a `Scene`), `outside` (a name: of
    `outside.PICTURES` or `outside.SOUNDS`)."""
    kind: str
    value: object


@dataclass(frozen=True)
class Turn:
    """What is given, and the right answer.

    Args:
        kind: of `KINDS`. why: of a refusal, one of `REFUSALS`.
        about: the number of the turn in which the picture that this one is about was shown or drawn; None: of none.
    """
    given: tuple[Part, ...]
    answer: Part
    kind: str
    why: str = ""
    about: int | None = None


def seconds(text: str) -> float:
    """About how long a text takes to say at 180 words a minute: a fit to `phrases.load_phrases`, of which the slowest voice
    takes 1.75 times as long."""
    letters = len(re.findall(r"\b[A-Z]\b", text))                       # of a sign, spelled
    return 0.21 + 0.04 * len(re.sub(r"\b[A-Z]\b ?", "", text)) + 0.18 * letters + 0.24 * len(re.findall("[,:]", text))


def sample_dialogue(rng: np.random.Generator, split: str = "train", world: World = WORLD) -> tuple[Turn, ...]:
    """A random conversation.

    Args:
        rng: numpy generator; the same state gives the same conversation.
        split: `train`: nothing that is held out is shown, drawn or named; `validation`, `test`: what is shown and what
            is asked to be drawn in full is of that split, and what is outside is of another make than in the others.
    """
    check_outside_split(split)
    talk = Talk(rng, split, world)
    for _ in range(1 + int(rng.choice(len(TURNS), p=TURNS))):
        talk.take_turn()
    return tuple(talk.turns)


def dialogues(n: int, split: str = "train", world: World = WORLD) -> list[tuple[Turn, ...]]:
    """`n` conversations; number i is the same whatever `n` is."""
    check_outside_split(split)
    rng = np.random.default_rng((OUTSIDE_SPLITS.index(split), 18))
    return [sample_dialogue(rng, split, world) for _ in range(n)]


class Talk:
    """A conversation in the making: its `turns`, the `picture` of now (None: there is none) and its turn, `since`."""

    def __init__(self, rng: np.random.Generator, split: str, world: World):
        self.rng, self.split, self.world = rng, split, world
        self.turns: list[Turn] = []
        self.picture: Scene | None = None
        self.since: int | None = None
        self.ground = next(iter(world.backgrounds))

    def take_turn(self) -> None:
        """One more turn, of a random kind."""
        getattr(self, self.one_of(KINDS))()

    # ---- dice

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def one_of(self, choices):
        """One of a sequence, or of a table name -> share."""
        if isinstance(choices, dict):
            shares = np.array(list(choices.values()), float)
            return str(self.rng.choice(list(choices), p=shares / shares.sum()))
        return choices[self.rng.integers(len(choices))]

    # ---- parts

    def request(self, text: str) -> Part:
        """A text, typed or spoken."""
        return Part("spoken" if seconds(text) <= LONGEST_REQUEST and self.chance(SPOKEN) else "text", text)

    def wanted(self, text: str, answer: str) -> tuple[Part, Part]:
        """A request and its answer, in text or by voice."""
        if seconds(answer) <= LONGEST_ANSWER and self.chance(ANSWERED_ALOUD):
            return self.request(ALOUD + text), Part("spoken", answer)
        return self.request(text), Part("text", answer)

    def add(self, kind: str, given: tuple[Part, ...], answer: Part, why: str = "", looks: bool = True) -> None:
        """The turn is taken. `looks`: it is about the picture of now."""
        about = self.since if looks and self.picture is not None else None
        self.turns.append(Turn(given, answer, kind, why, about))

    def see(self, scene: Scene | None) -> None:
        """From this turn on this is the picture."""
        self.picture, self.since = scene, None if scene is None else len(self.turns)

    def look(self, fits=lambda scene: True) -> tuple[Part, ...]:
        """What is given before a request about a picture that `fits`: nothing if there is one, but for `SHOWN` of the times; else
        a new one."""
        if self.picture is not None and fits(self.picture) and not self.chance(SHOWN):
            return ()
        for _ in range(TRIES):
            scene = self.world.sample(self.rng, self.split)
            if fits(scene):
                self.see(scene)
                return (Part("image", scene),)
        raise ValueError(f"no picture of the split {self.split!r} of this world fits in {TRIES:,} tries")

    # ---- turns

    def draw(self) -> None:
        """A picture in words: in full, in part, or one thing by its name."""
        text, scene = self.drawing()
        self.see(scene)
        self.add("draw", (self.request(text),), Part("image", scene), looks=False)

    def drawing(self) -> tuple[str, Scene]:
        """A request to draw, and what it asks for."""
        style = self.one_of({"bare": 0.4, "draw": 0.2, "part": 0.3, "thing": 0.1})
        for _ in range(TRIES):
            scene = self.world.sample(self.rng, self.split)
            text = self.world.caption(scene)
            if style == "part" and scene.groups:
                named = scene.background if self.chance(0.5) else ""
                scene = Scene(scene.groups, named or self.ground)
                text = self.world.grammar.caption(scene.groups, named)
            elif style == "thing" and scene.groups and 1 in self.world.kinds:
                group = Group(scene.groups[0].noun, 1, PLACES[0])
                scene, text = Scene((group,), self.ground), f"what is {self.named(group)}?"
            if self.allowed(scene):
                return (text if style == "bare" or text.endswith("?") else f"draw {text}"), scene
        raise ValueError(f"nothing of the split {self.split!r} of this world can be drawn in {TRIES:,} tries")

    def change(self) -> None:
        """An instruction for the picture of now, or for one that is shown."""
        edit, given = None if self.picture is None or self.chance(SHOWN) else self.edit(self.picture), ()
        if edit is None:
            edit = sample_edit(self.rng, self.split, world=self.world)
            self.see(edit.before)
            given = (Part("image", edit.before),)
        request = self.request(edit.instruction)
        self.add("change", (*given, request), Part("image", edit.after))
        self.picture, self.since = edit.after, len(self.turns) - 1

    def edit(self, scene: Scene) -> Edit | None:
        """A change of a scene whose outcome may be shown; None if there seems to be none."""
        kinds = edits.possible(scene, self.world)
        for _ in range(50 if kinds else 0):
            edit = make_edit(scene, self.one_of(kinds), self.rng, self.world)
            if self.allowed(edit.after):
                return edit
        return None

    def ask(self) -> None:
        """A question with an exact answer."""
        given = self.look(lambda scene: bool(questions.possible(scene, self.world)))
        question = questions.sample_question(self.rng, self.picture, world=self.world)
        request, answer = self.wanted(question.text, question.answer)
        self.add("ask", (*given, request), answer)

    def describe(self) -> None:
        """The caption of the picture, in text: it is too long for a voice."""
        given = self.look()
        self.add("describe", (*given, self.request(self.one_of(DESCRIBE))), Part("text", self.world.caption(self.picture)))

    def name(self) -> None:
        """The noun of the only kind of thing in the picture."""
        if 1 not in self.world.kinds:
            return self.describe()
        given = self.look(lambda scene: len(scene.groups) == 1)
        request, answer = self.wanted(self.one_of(NAME), self.picture.groups[0].noun)
        self.add("name", (*given, request), answer)

    def write(self) -> None:
        """What is said, in text."""
        if self.chance(0.3):
            word = self.one_of(self.world.words)
            return self.add("write", (Part("spoken", word),), Part("text", word), looks=False)
        while seconds(phrase := self.phrase()) > LONGEST_REQUEST:
            pass
        self.add("write", (Part("text", WRITE), Part("spoken", phrase)), Part("text", phrase), looks=False)

    def phrase(self) -> str:
        """Anything that may be said."""
        what = self.one_of(("word", "caption", "request", "answer"))
        scene = self.world.sample(self.rng, self.split)
        if what == "word" or not scene.groups:
            return self.one_of(self.world.words)
        if what == "caption":
            return self.world.grammar.caption(scene.groups[:1], scene.background if self.chance(0.5) else "")
        if what == "request":
            return self.about(scene)[0]
        return questions.sample_question(self.rng, scene, world=self.world).answer

    def say(self) -> None:
        """A word or a few, spoken."""
        scene, text = self.world.sample(self.rng, self.split), ""
        if scene.groups and self.chance(0.3):
            text = self.world.grammar.describe(scene.groups[0])
            text = text if self.chance(0.5) else text.partition(" on the ")[0]
        if not text or seconds(text) > LONGEST_ANSWER:
            text = self.one_of(self.world.words)
        self.add("say", (self.request(f"say {text}"),), Part("spoken", text), looks=False)

    # ---- refusals

    def refuse(self) -> None:
        """Something that nobody of this world can answer."""
        left_out = {"no picture"} if self.picture is not None else set()
        left_out |= set() if max(self.world.kinds) else {"unknown word", "unanswerable"}    # signs alone: no thing is named
        shares = {why: share for why, share in REFUSALS.items() if why not in left_out}
        why = self.one_of(shares)
        if why in PICTURES:
            self.see(None)
            text, _ = self.about(self.world.sample(self.rng, self.split))
            return self.unknown(why, Part("outside", why), self.request(text))
        if why in SOUNDS:
            first = () if self.chance(0.3) else (Part("text", WRITE),)
            return self.unknown(why, *first, Part("outside", why))
        if why == "no picture":
            text, _ = self.about(self.world.sample(self.rng, self.split))
            return self.unknown(why, self.request(text))
        if why == "unanswerable":
            given = self.look(lambda scene: any(group.count == 1 for group in scene.groups))
            noun = self.one_of([group.noun for group in self.picture.groups if group.count == 1])
            text = self.one_of(UNANSWERABLE[self.split]).format(noun)
            return self.unknown(why, *given, self.request((ALOUD if self.chance(ANSWERED_ALOUD) else "") + text), looks=True)
        self.unknown_word()

    def unknown(self, why: str, *given: Part, looks: bool = False) -> None:
        """The turn is taken with a refusal."""
        self.add("refuse", given, Part("text", UNKNOWN), why, looks)

    def unknown_word(self) -> None:
        """A request as any other, but about a thing that the world does not have."""
        word, given = self.one_of(unknown_words(self.split, self.world)), ()
        kind = self.one_of({"draw": 0.4, "ask or change": 0.4, "say": 0.2})
        if kind == "ask or change":
            given = self.look()
        for _ in range(TRIES):
            text = (self.drawing()[0] if kind == "draw" else f"say {self.one_of(self.world.nouns)}" if kind == "say"
                    else self.about(self.picture)[0])
            nouns = [noun for noun in self.world.nouns if named_in(text, noun, self.world)]
            if nouns:
                text = about_another(text, self.one_of(nouns), word, self.world)
                return self.unknown("unknown word", *given, self.request(text), looks=kind == "ask or change")
        raise ValueError(f"no request of this world names one of its nouns in {TRIES:,} tries")

    def about(self, scene: Scene) -> tuple[str, str]:
        """A request about a picture as any other, with or without `ALOUD`, and its kind."""
        kind = self.one_of({kind: KINDS[kind] for kind in ("change", "ask", "describe", "name")})
        if kind == "change" and (edit := self.edit(scene)) is not None:
            return edit.instruction, kind
        if kind == "describe" or not questions.possible(scene, self.world):
            return self.one_of(DESCRIBE), "describe"
        if kind == "name":
            text = self.one_of(NAME)
        else:
            text, kind = questions.sample_question(self.rng, scene, world=self.world).text, "ask"
        return (ALOUD if self.chance(ANSWERED_ALOUD) else "") + text, kind

    # ---- the world

    def allowed(self, scene: Scene) -> bool:
        """Whether a scene may be shown in this split: a conversation of the validation split shows nothing of the test split."""
        return self.world.split_of(scene) in BEFORE[self.split]

    def named(self, group: Group) -> str:
        """A group in words without its place."""
        return self.world.describe(group).partition(" on the ")[0]


def named_in(text: str, noun: str, world: World = WORLD) -> bool:
    """Whether a text names a thing, in the singular or plural."""
    return re.search(rf"\b({noun}|{world.grammar.plural(noun)})\b", text) is not None


def about_another(text: str, noun: str, word: str, world: World = WORLD) -> str:
    """The same text about another thing: articles and plurals as they should be.

    >>> about_another("replace the cat with an owl", "owl", "zebra")
    'replace the cat with a zebra'
    """
    text = re.sub(rf"\b{world.grammar.plural(noun)}\b", world.grammar.plural(word), text)
    return re.sub(rf"\b(an? )?{noun}\b", lambda m: (("an " if word[0] in "aeiou" else "a ") if m[1] else "") + word, text)


def spoken_texts(talks: list[tuple[Turn, ...]]) -> dict[str, list[str]]:
    """All that is spoken in conversations, in alphabetical order: by the user, `given`, and as an `answer`."""
    given = {part.value for talk in talks for turn in talk for part in turn.given if part.kind == "spoken"}
    answers = {turn.answer.value for talk in talks for turn in talk if turn.answer.kind == "spoken"}
    return {"given": sorted(given), "answer": sorted(answers)}
