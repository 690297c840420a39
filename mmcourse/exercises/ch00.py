"""The exercise of chapter 00: a sentence in the language of this world."""
import difflib
import re

from mmcourse.exercises import register
from mmcourse.world.scene import BACKGROUNDS, NOUNS, WORLD, parse_caption

EXAMPLE = "a cat on the left, two suns on the right, blue ground, sign K I T E"
NAMES = {name: noun for noun in NOUNS for name in (noun, WORLD.grammar.plural(noun))}
GROUP = re.compile(r"(?P<count>a|an|one|two|three|four) (?P<noun>[a-z]+)(?: on the (?P<place>left|right))?")


def my_prompt() -> str:
    """Two kinds of things, a background and a sign."""
    return "an owl on the left, two pizzas on the right, green ground, sign N I G H T"


def _says(sentence):
    def answer():
        return sentence
    answer.__name__ = f"says_{sentence[:60]!r}"
    return answer


WRONG = (
    "an owl on the left, green ground, sign N I G H T",
    "an owl on the left, two pizzas on the right, sign N I G H T",
    "an owl on the left, two pizzas on the right, green ground, sign NIGHT",
    "an owl on the left, two pizzas on the right, green ground",
    "a dragon on the left, two pizzas on the right, green ground, sign N I G H T",
    "an owl on the left, three pizzas on the right, green ground, sign N I G H T",
    "a cat on the left, a cat on the right, green ground, sign N I G H T",
    "an owl on the right, two pizzas on the left, green ground, sign N I G H T",
    "An owl on the left, two pizzas on the right, green ground, sign N I G H T.",
    "an owl on the left and two pizzas on the right, green ground, sign N I G H T",
    "an owl on the left, two pizza on the right, green ground, sign N I G H T",
    "a owl on the left, two pizzas on the right, green ground, sign N I G H T",
    "an owl on the left, 2 pizzas on the right, green ground, sign N I G H T",
    "an owl on the left, two pizzas on the right, pink ground, sign N I G H T",
    "an owl on the left, two pizzas on the right, ground green, sign N I G H T",
    "an owl on the left, two pizzas on the right, green ground, sign N O",
    "an owl on the left, two pizzas on the right, green ground, sign n i g h t",
    "an owl on the left, two pizzas on the right, green ground, sign: N I G H T",
    "an owl on the left, two pizzas on the right, blue, sign N I G H T",
    "",
)


@register("00.my_prompt", reference=my_prompt, minutes=2, difficulty=1, wrong=[_says(text) for text in WRONG],
          hint=f'Change the nouns of "{EXAMPLE}".')
def check_my_prompt(fn):
    said = fn()
    assert isinstance(said, str), f"give a sentence back (a str), not {type(said).__name__}"
    wrong = problem(said)
    assert not wrong, f"{wrong}. Compare with the example: {EXAMPLE}"


def problem(said: str) -> str:
    """The first thing that keeps a sentence from being one of this world with two kinds of things, in words; or ""."""
    parts = said.strip().split(", ")
    sign = next((part for part in parts if part.startswith("sign")), "")
    rest = [part for part in parts if part != sign]
    things = [part for part in rest if "ground" not in part]
    small = ", ".join(rest)
    if small != small.lower():
        return "write small letters: only the letters of the sign are capitals"
    if said.strip().endswith("."):
        return "leave the full stop out"
    if " and " in said:
        return "write a comma where you wrote “and”"
    if not sign:
        return "there is no sign: end with, for example, “sign K I T E”"
    if not re.fullmatch(r"sign( [A-Z]){3,5}", sign):
        return f"“{sign}” is no sign: write “sign” and three to five capital letters, a space before each"
    ground = [part for part in rest if "ground" in part]
    if len(ground) != 1 or ground[0].removesuffix(" ground") not in BACKGROUNDS:
        return f"say the background with one of {', '.join(BACKGROUNDS)}, such as “blue ground”"
    for part in things:
        if wrong := wrong_group(part):
            return wrong
    if len(things) != 2 or len({NAMES[GROUP.fullmatch(part)["noun"]] for part in things}) != 2:
        return "two kinds of things are asked for: one on the left, another on the right"
    if [GROUP.fullmatch(part)["place"] for part in things] != ["left", "right"]:
        return "what stands on the left comes first, then what stands on the right"
    try:
        return "" if parse_caption(said) else "not a sentence of this world"
    except ValueError:
        return "the order is: left, right, background, sign, with a comma and a space between them"


def wrong_group(part: str) -> str:
    """What is wrong with `two suns on the right`, in words; or ""."""
    found = GROUP.fullmatch(part)
    if not found:
        return f"“{part}” is not of the form “a cat on the left” or “two suns on the right”"
    noun, count = found["noun"], found["count"]
    if noun not in NAMES:
        near = difflib.get_close_matches(noun, NOUNS, 3, 0.5)
        return f"this world has no “{noun}”; " + (f"the nearest names are {', '.join(near)}" if near else
                                                 "the things are printed above")
    if count in ("three", "four"):
        return "one or two of a thing stand on a side (three or four would fill the whole picture)"
    thing = NAMES[noun]
    article = "an" if thing[0] in "aeiou" else "a"
    right = WORLD.grammar.plural(thing) if count == "two" else f"{article} {thing}"
    if (noun if count == "two" else f"{count} {noun}") != right:
        return f"“{count} {noun}” should be “{'two ' if count == 'two' else ''}{right}”"
    return ""
