"""The exercise of chapter 00: a sentence in the language of this world."""
from mmcourse.exercises import register
from mmcourse.world.scene import BACKGROUNDS, NOUNS, parse_caption


def my_prompt() -> str:
    """Two kinds of things, a background and a sign."""
    return "an owl on the left, two pizzas on the right, green ground, sign N I G H T"


def _one_thing():
    return "an owl on the left, green ground, sign N I G H T"


def _no_background():
    return "an owl on the left, two pizzas on the right, sign N I G H T"


def _sign_in_one_piece():
    return "an owl on the left, two pizzas on the right, green ground, sign NIGHT"


def _not_of_this_world():
    return "a dragon on the left, two pizzas on the right, green ground, sign N I G H T"


def _three_on_one_side():
    return "an owl on the left, three pizzas on the right, green ground, sign N I G H T"


@register("00.my_prompt", reference=my_prompt, minutes=3, difficulty=1,
          wrong=[_one_thing, _no_background, _sign_in_one_piece, _not_of_this_world, _three_on_one_side],
          hint='Change the nouns of "a cat on the left, two suns on the right, blue ground, sign K I T E".')
def check_my_prompt(fn):
    said = fn()
    assert isinstance(said, str), f"give a sentence back (a str), not {type(said).__name__}"
    try:
        scene = parse_caption(said)
    except ValueError as error:
        raise AssertionError(f"{error}. The backgrounds are {', '.join(BACKGROUNDS)}; the nouns begin "
                             f"{', '.join(NOUNS[:6])}; one or two of a thing stand on the left or on the "
                             "right; the letters of a sign stand apart") from None
    assert len(scene.groups) == 2, f"{said!r} has one kind of thing: put another one on the other side"
    assert scene.sign, f"{said!r} has no sign: end with, for example, sign K I T E"
