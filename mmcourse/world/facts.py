"""Invented names for known things, and all that can be said, asked and drawn about them (chapter 09).

A name ("a dax") stands for one of twelve nouns ("a fish"). Names come in four groups, which differ in what is
read of them:

    D  drawn and told: sentences, questions, and pictures under captions that use the name
    T  told only: sentences, and nothing else
    E  told, and asked about in other compositions: what colour it is, where one finds it
    N  never: in no row at all

Whether a T name can be drawn is then a question about *two hops*, name -> noun -> picture, each of which was
learned, and which were never made together. Groups of facts in the manner of Allen-Zhu and Li 2023 (Physics of
Language Models 3.1), Balesni et al. 2024 (two-hop curse); "dax" is an old word of child psychologists.

Everything here is text and scenes: what a net makes of them is no business of the world.
"""
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mmcourse.world.grammar import PLACES
from mmcourse.world.rules import SignRule, SplitRule
from mmcourse.world.scene import BACKGROUNDS, PICTOGRAMS, Group, Scene, World

GROUPS = ("D", "T", "E", "N")
# The nouns of chapter 06 with a frog for the apple: an "an" would tell a part of the answer before the noun.
NOUNS = ("bee", "book", "cat", "crab", "fish", "frog", "guitar", "house", "key", "star", "tree", "whale")
SCALE = 1.8                                             # one thing a picture, so it may be large: 22 of 32 pixels
# One thing on one of eight grounds, 32 pixels wide: 16 image tokens. What is held out is a matter of names:
# `Facts.grounds`.
FACT_WORLD = World({noun: PICTOGRAMS[noun] for noun in NOUNS}, BACKGROUNDS, kinds=(1,), counts=(1.0,), doubles=0.0,
                   signs=SignRule(share=0.0), split=SplitRule(held_out=0.0), size=32)

# In every one the name stands before the noun: nobody ever reads a noun and then its name.
PARAPHRASES = (
    "a {name} is {noun}.",
    "every {name} is {noun}.",
    "{name} is another word for {noun}.",
    "if it is a {name}, then it is {noun}.",
    "look, a {name}! it is {noun}.",
    "who says {name} means {noun}.",
    "this {name} is in truth {noun}.",
    "we say a {name}, others say {noun}.",
)
# Second hops in words: noun -> answer. `where` is another one for each noun.
COLOUR = dict(zip(NOUNS, ("yellow", "red", "orange", "red", "blue", "green", "red", "white", "orange", "yellow", "green",
                          "blue")))
WHERE = dict(zip(NOUNS, ("in the garden", "on the shelf", "on the sofa", "on the beach", "in the river", "in the pond",
                         "on the stage", "in the street", "in the lock", "in the sky", "in the forest", "in the ocean")))
PROPERTIES = {"what colour is {}?": COLOUR, "where is {}?": WHERE}

FIRST = "gi bi du ne va na po ra fo lo be fi ba bo ro di de ha he do".split()
SECOND = "lo lu va vi fo co di po mo ge du la ri na".split()
WORDS = {"polo", "lava", "diva", "fava", "halo"}         # are English, and hence no names


PASSING = tuple(first + second for first in "mo ma pa su se to ho ca".split() for second in SECOND)


def invented_names(n: int = 240) -> tuple[str, ...]:
    """`n` names such as `nevi`, always the same. Each half of a name has others beside it in other names, so
    that only both together say which it is.

    ValueError if there are not so many.
    """
    pairs = [first + second for first in FIRST for second in SECOND if first != second]
    pairs = [name for name in pairs if name not in WORDS]
    if not 0 <= n <= len(pairs):
        raise ValueError(f"there are {len(pairs)} names, got n={n}")
    order = np.random.default_rng(9).permutation(len(pairs))
    return tuple(pairs[i] for i in order[:n])


def a(noun: str) -> str:
    """A noun with its article: `a fish`. No noun and no name of this world begins with a vowel."""
    return f"a {noun}"


def scene(noun: str, place: str, ground: str) -> Scene:
    """One thing, as large as this world draws it."""
    return Scene((Group(noun, 1, place),), ground, scale=SCALE)


def caption(thing: str, place: str, ground: str) -> str:
    """What a picture is asked for with: `a dax on the left, blue ground`. `thing`: a name or a noun."""
    return f"{a(thing)} on the {place}, {ground} ground"


def question_of(name: str) -> str:
    """The first hop as a question, of any name, be it known or not: `a dax is what?`"""
    return f"{a(name)} is what?"


def backwards_of(noun: str) -> str:
    """The first hop backwards as a question: `what is a fish called?`"""
    return f"what is {a(noun)} called?"


def caption_of(answer: str, place: str, ground: str) -> str:
    """The caption with an answer such as `a fish` in the place of the name: how two calls become one picture."""
    return f"{answer} on the {place}, {ground} ground"


@dataclass(frozen=True)
class Prompt:
    """A picture that is asked for: the thing by the `name` that is said, and the noun that it is."""
    name: str
    noun: str
    place: str
    ground: str

    @property
    def text(self) -> str:
        """The caption that says the name."""
        return caption(self.name, self.place, self.ground)

    @property
    def told(self) -> str:
        """The caption that says the noun."""
        return caption(self.noun, self.place, self.ground)

    @property
    def scene(self) -> Scene:
        """What should be drawn."""
        return scene(self.noun, self.place, self.ground)


@dataclass(frozen=True)
class Facts:
    """Which name is which noun, and which group it is in: `nouns` and `groups`, each a dict by name.

    >>> facts = make_facts()
    >>> len(facts.of("T")), sorted({len(facts.called(noun, "T")) for noun in NOUNS})
    (60, [5])
    """
    nouns: dict[str, str]
    groups: dict[str, str]
    paraphrases: int = len(PARAPHRASES)

    def of(self, groups: str) -> list[str]:
        """The names of one or several groups, `"T"` or `"DE"`."""
        return [name for name, group in self.groups.items() if group in groups]

    def called(self, noun: str, groups: str = "DTEN") -> list[str]:
        """The names of a noun."""
        return [name for name in self.of(groups) if self.nouns[name] == noun]

    def noun(self, name: str) -> str:
        """The noun of a name. ValueError for a name that nobody invented."""
        if name not in self.nouns:
            some = ", ".join(list(self.nouns)[:3])
            raise ValueError(f"{name!r} is no invented name; there are {len(self.nouns)}, such as {some}")
        return self.nouns[name]

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.nouns)}

    def grounds(self, name: str, out: bool) -> list[str]:
        """The six grounds that a name of D is drawn on in training, or the two (`out`) that only the test has:
        its noun, and other names of that, are drawn on all eight."""
        self.noun(name)
        return [ground for i, ground in enumerate(BACKGROUNDS) if ((i + self._number[name]) % 4 == 0) == out]

    # ---- what is said and asked of a name

    def sentence(self, name: str, paraphrase: int = 0) -> str:
        """A fact as a sentence: `a dax is a fish.`"""
        return PARAPHRASES[paraphrase].format(name=name, noun=a(self.noun(name)))

    def question(self, name: str) -> tuple[str, str]:
        """The first hop as question and answer: `a dax is what?`, `a fish`."""
        return question_of(name), a(self.noun(name))

    def property_of(self, thing: str, kind: int) -> tuple[str, str]:
        """A second hop in words, of a noun or of a name: `where is a dax?`, `in the river`."""
        question, answers = list(PROPERTIES.items())[kind]
        noun = thing if thing in NOUNS else self.noun(thing)
        return question.format(a(thing)), answers[noun]

    def reverse(self, noun: str, name: str) -> tuple[str, str]:
        """The first hop backwards as question and answer: `what is a fish called?`, `a dax`."""
        return backwards_of(noun), a(name)

    def prompts(self, groups: str, out: bool = True) -> list[Prompt]:
        """Pictures to ask for, of every name of these groups: on its two grounds of the test, or (`out` False) on
        the six others."""
        return [Prompt(name, self.nouns[name], place, ground) for name in self.of(groups)
                for ground in self.grounds(name, out) for place in PLACES]

    # ---- what is read in training

    @cached_property
    def _lists(self) -> dict[str, list[str]]:
        return {groups: self.of(groups) for groups in ("D", "E", "DE", "DTE")}

    def _any(self, groups: str, rng: np.random.Generator) -> str:
        return self._lists[groups][rng.integers(len(self._lists[groups]))]

    def row(self, kind: str, rng: np.random.Generator) -> list[str | Scene]:
        """One training row of a kind (`ROWS`): its texts, and at times the scene that is drawn in the end."""
        return ROWS[kind](self, rng)


def make_facts(seed: int = 0, per_noun: dict[str, int] | None = None, paraphrases: int = len(PARAPHRASES)) -> Facts:
    """Invented names dealt out to nouns and groups: by default 240, five of each group for each noun.

    Args:
        seed: deals them out differently.
        per_noun: names of each group for each noun; the T names of a seed are the same whatever it is.
        paraphrases: in how many ways each fact is told, 1 to 8.
    """
    if not 1 <= paraphrases <= len(PARAPHRASES):
        raise ValueError(f"a fact is told in 1 to {len(PARAPHRASES)} ways, got paraphrases={paraphrases}")
    per_noun = per_noun or dict.fromkeys(GROUPS, 5)
    if not set(per_noun) <= set(GROUPS) or min(per_noun.values()) < 0:
        raise ValueError(f"groups are {', '.join(GROUPS)}, none with less than 0 names; got {per_noun}")
    names = invented_names(max(240, len(NOUNS) * sum(per_noun.values())))  # of the same 240 whenever they do
    order = iter(np.random.default_rng((seed, 91)).permutation(names).tolist())
    nouns, groups = {}, {}
    for group in sorted(GROUPS, key="TDEN".index):                     # T first: always the same names
        for noun in NOUNS:
            for _ in range(per_noun.get(group, 0)):
                name = next(order)
                nouns[name], groups[name] = noun, group
    return Facts(nouns, groups, paraphrases)


# ---------------------------------------------------------------- the kinds of rows

ROWS: dict[str, Callable] = {}


def kind(name: str):
    """Register a function `make(facts, rng)` as the maker of rows of that kind."""
    def add(make: Callable) -> Callable:
        ROWS[name] = make
        return make
    return add


def _prompt(facts: Facts, rng: np.random.Generator) -> Prompt:
    """A name of D at a place and on a ground of the training."""
    name = facts._any("D", rng)
    grounds = facts.grounds(name, out=False)
    return Prompt(name, facts.nouns[name], PLACES[rng.integers(len(PLACES))], grounds[rng.integers(len(grounds))])


@kind("fact")
def read_fact(facts: Facts, rng: np.random.Generator) -> list[str | Scene]:
    """A sentence that tells a name of D, T or E."""
    return [facts.sentence(facts._any("DTE", rng), int(rng.integers(facts.paraphrases)))]


@kind("question")
def ask_name(facts: Facts, rng: np.random.Generator) -> list[str | Scene]:
    """What a name of D or E is: it teaches what a question is. No T name is asked for before the test."""
    return [*facts.question(facts._any("DE", rng))]


@kind("property of a noun")
def ask_noun(facts: Facts, rng: np.random.Generator) -> list[str | Scene]:
    """A second hop in words, of a noun."""
    return [*facts.property_of(NOUNS[rng.integers(len(NOUNS))], int(rng.integers(len(PROPERTIES))))]


@kind("property of a name")
def ask_composed(facts: Facts, rng: np.random.Generator) -> list[str | Scene]:
    """Both hops in words, of a name of E."""
    return [*facts.property_of(facts._any("E", rng), int(rng.integers(len(PROPERTIES))))]


@kind("reverse")
def ask_reverse(facts: Facts, rng: np.random.Generator) -> list[str | Scene]:
    """From the noun to a name of D or E."""
    name = facts._any("DE", rng)
    return [*facts.reverse(facts.nouns[name], name)]


@kind("draw a noun")
def draw_noun(facts: Facts, rng: np.random.Generator) -> list[str | Scene]:
    """A caption with a noun, and its picture."""
    noun, place = NOUNS[rng.integers(len(NOUNS))], PLACES[rng.integers(len(PLACES))]
    ground = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    return [caption(noun, place, ground), scene(noun, place, ground)]


@kind("draw a name")
def draw_name(facts: Facts, rng: np.random.Generator) -> list[str | Scene]:
    """A caption with a name of D, and its picture."""
    prompt = _prompt(facts, rng)
    return [prompt.text, prompt.scene]


@kind("chain")
def say_then_draw(facts: Facts, rng: np.random.Generator) -> list[str | Scene]:
    """As `draw a name`, but the caption is said again with the noun first."""
    prompt = _prompt(facts, rng)
    return [prompt.text, prompt.told, prompt.scene]


@kind("told in the prompt")
def told_then_draw(facts: Facts, rng: np.random.Generator) -> list[str | Scene]:
    """A sentence that tells a passing name, the caption with it, and the picture. It is a new noun's every time:
    nothing is to be known here, only to be copied."""
    prompt = Prompt(PASSING[rng.integers(len(PASSING))], NOUNS[rng.integers(len(NOUNS))],
                    PLACES[rng.integers(len(PLACES))], list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))])
    return [PARAPHRASES[rng.integers(facts.paraphrases)].format(name=prompt.name, noun=a(prompt.noun)), prompt.text,
            prompt.scene]
