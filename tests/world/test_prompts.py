"""What people type is read as it was meant, and what was not understood is said; what is in the grammar stays as it is."""
import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcourse.dataset import partial_caption
from mmcourse.world import prompts
from mmcourse.world.dialogues import ALOUD, dialogues
from mmcourse.world.edits import sample_edit
from mmcourse.world.grammar import Grammar
from mmcourse.world.outside import OUTSIDE_SPLITS
from mmcourse.world.prompts import LONGEST, SYNONYMS, random_prompt, read_prompt, read_request, read_word
from mmcourse.world.questions import sample_question
from mmcourse.world.rules import SignRule
from mmcourse.world.scene import WORLD, World


def test_docstrings():
    assert doctest.testmod(prompts).failed == 0


# ---------------------------------------------------------------- in the grammar: untouched

OTHER = World({"pine": "🌲", "hot air balloon": "🎈", "leaf": "🍂"}, {"dawn": (250, 180, 150), "night": (20, 20, 60)},
              signs=SignRule(words=("STOP", "GO"), letter=8), grammar=Grammar("sky", "label", False, {"leaf": "leaves"}))


@pytest.mark.parametrize("world", [WORLD, OTHER], ids=["course", "other"])
def test_captions_parts_of_captions_and_instructions_stay_as_they_are(world):
    rng = np.random.default_rng(0)
    for _ in range(1500):
        scene = world.sample(rng, "any")
        for text in (world.caption(scene), partial_caption(scene, rng, world), sample_edit(rng, world=world).instruction):
            assert read_prompt(text, world) == (text, ()), text


def test_every_word_stays_as_it_is():
    for word in WORLD.words:
        assert read_prompt(word) == read_word(word) == (word, ())


# ---------------------------------------------------------------- signs

@pytest.mark.parametrize("typed", [
    "sign KITE.", "sign KITE,", "sign KITE!", 'sign "KITE"', "sign “KITE”", "sign 'KITE'", "sign «KITE»", "sign K I T E", "sign K.I.T.E.",
    "sign K-I-T-E", "sign K, I, T, E", "sign k i t e", "sign kite", "Sign: kite", "SIGN KITE", "a sign KITE", "a sign that says KITE",
    "the sign says “kite”", "sign reading KITE", "a sign with the word KITE", "(sign KITE)", "sign ＫＩＴＥ", "sign KI\u200bTE", "sign\u00a0KITE",
])
def test_the_letters_of_a_sign_survive_every_spelling(typed):
    assert read_prompt(typed) == ("sign K I T E", ())
    for before, after in (("a cat on the left, ", ""), ("", ", blue ground")):
        text, said = read_prompt(before + typed + after)
        assert said == () and text.endswith("sign K I T E") and ("a cat on the left" in text) == bool(before), text


@pytest.mark.parametrize("typed, read", [
    ("sign KITE, blue ground", "blue ground, sign K I T E"), ("SIGN K I T E, A CAT", "a cat, sign K I T E"),
    ("sign k-i-t-e, a cat on the right", "a cat on the right, sign K I T E"), ("sign A I M, a dog", "a dog, sign A I M"),
    ("a dog on the right sign KITE blue ground", "a dog on the right, blue ground, sign K I T E"),
    ("sign cat", "sign C A T"), ("sign DOG, a dog on the right", "a dog on the right, sign D O G"), ('sign "READ"', "sign R E A D"),
    ("a sign reading CAT", "sign C A T"), ("sign A B C", "sign A B C"), ("a cat with the sign LEFT", "a cat, sign L E F T"),
])
def test_signs_among_other_things(typed, read):
    assert read_prompt(typed) == (read, ())


@pytest.mark.parametrize("typed, read, said", [
    ("KITE", "sign K I T E", "I read “KITE” as the sign"), ("a cat KITE", "a cat, sign K I T E", "I read “KITE” as the sign"),
    ('a cat, "Kite"', "a cat, sign K I T E", "as the sign"), ("K I T E", "sign K I T E", "as the sign"),
    ("a picture of a lion with the letters LION", "a lion, sign L I O N", "I read “LION” as the sign"),
    ("sign AB", "sign A B", "I learned signs of 3, 4 or 5 letters: “AB” has 2 and may go wrong"),
    ("sign ELEPHANTS", "sign E L E P H A N T S", "“ELEPHANTS” has 9"), ("a cat, sign K1TE", "a cat", "A sign has letters A to Z: “K1TE” is left out"),
    ("a cat, sign KÄSE", "a cat", "letters A to Z: “KÄSE”"), ("a cat with a sign", "a cat", "The sign has no letters: write “sign K I T E”"),
])
def test_signs_that_need_a_word(typed, read, said):
    text, remarks = read_prompt(typed)
    assert text == read and len(remarks) == 1 and said in remarks[0]


# ---------------------------------------------------------------- what is clear is put right without a word

@pytest.mark.parametrize("typed, read", [
    ("A CAT ON THE LEFT, BLUE GROUND", "a cat on the left, blue ground"),
    ("A CAT ON THE LEFT, BLUE GROUND, SIGN KITE", "a cat on the left, blue ground, sign K I T E"),
    ("A cat on the left. Blue ground.", "a cat on the left, blue ground"), ("(a cat) on the [left]", "a cat on the left"),
    ("2 cats on the left", "two cats on the left"), ("1 cat, 1 dog", "a cat on the left, a dog on the right"),
    ("one cat on the left", "a cat on the left"), ("a owl on the right", "an owl on the right"), ("3 buses", "three buses"),
    ("two cat on the left", "two cats on the left"), ("2 fish on the right", "two fishes on the right"), ("2 cacti at left", "two cactuses on the left"),
    ("a cat and a dog", "a cat on the left, a dog on the right"), ("a cat left of a dog", "a cat on the left, a dog on the right"),
    ("a cat to the right of a dog", "a dog on the left, a cat on the right"),
    ("on the right a cat, on the left a dog", "a dog on the left, a cat on the right"),
    ("left: a cat, right: two dogs; ground: yellow", "a cat on the left, two dogs on the right, yellow ground"),
    ("a dog on the right, a cat on the left", "a cat on the left, a dog on the right"),
    ("a cat on a blue background", "a cat, blue ground"), ("a cat on blue", "a cat, blue ground"), ("blue ground, a cat", "a cat, blue ground"),
    ("a house and it is orange", "a house, orange ground"), ("Please draw a cat on the left!", "a cat on the left"),
    ("show me a picture of three ghosts with a purple background", "three ghosts, purple ground"),
    ("ａ ｃａｔ，\u3000blue ground", "a cat, blue ground"), ("a\u200b c\u200bat on the le\u00adft", "a cat on the left"),
    ("a pair of cats on the left", "two cats on the left"), ("Cat.", "cat"), ("CAT", "cat"), ("Yellow!", "yellow"), ('"cat"', "cat"),
])
def test_what_is_clear(typed, read):
    assert read_prompt(typed) == (read, ())


@pytest.mark.parametrize("typed, read", [
    ("Make the background green!", "make the ground green"), ("make it red", "make the ground red"),
    ("change the ground from red to blue", "make the ground blue"), ("MAKE THE GROUND GREEN", "make the ground green"),
    ("replace the cats with fishes", "replace the cats with fishes"), ("please turn the cat into a dog", "replace the cat with a dog"),
    ("change the cat to an owl", "replace the cat with an owl"), ("delete the cat", "remove the cat"), ("get rid of the cats", "remove the cats"),
    ("put a dog on the right", "add a dog on the right"), ("put the dog on the right", "move the dog to the right"),
    ("add 2 dogs on the left", "add two dogs on the left"), ("move the cat left", "move the cat to the left"),
    ("erase the sign KITE", "remove the sign"), ("make the sign say KITE", "make the sign K I T E"), ('change the sign to "kite"', "make the sign K I T E"),
    ("add a sign KITE", "make the sign K I T E"), ("make a cat on the left", "a cat on the left"), ("paint three stars", "three stars"),
])
def test_instructions(typed, read):
    assert read_prompt(typed) == (read, ())


# ---------------------------------------------------------------- what is not clear is said

@pytest.mark.parametrize("typed, read, said", [
    ("a zebra and a cat", "a cat", "I know no “zebra” (nearest: camera)."),
    ("a striped cat", "a cat", "I know no “striped” (nearest: red, tree)."),
    ("umbrela", "umbrella", "I read “umbrela” as “umbrella”."), ("a kitten", "a cat", "I read “kitten” as “cat”."),
    ("two red apples on the left", "two apples on the left", "“red” before “apples” is left out: things have colours of their own"),
    ("5 cats", "four cats", "I count to four: I take four of “cat”."), ("10000000000 cats", "four cats", "I count to four"),
    ("two cats", "two cats on the left", "Where do the two stand? I take the left."),
    ("cats on the left", "two cats on the left", "How many of “cat”? I take two."),
    ("three cats and a dog", "two cats on the left, a dog on the right", "I count to two if there are two kinds"),
    ("three stars on the left", "three stars", "Three or four things fill the picture: “on the left” is left out."),
    ("a cat, a dog, a cow", "a cat on the left, a dog on the right", "I draw two kinds of things at most: “cow” is left out."),
    ("a cat without a dog", "a cat", "I draw only what is named: “without a dog” is left out."),
    ("a cat above a dog", "a cat on the left, a dog on the right", "I know only left and right: “above” is left out."),
    ("a cat on the left, a dog on the left", "a cat on the left, a dog on the right", "“dog” goes to the other one"),
    ("a cat, blue ground, red ground", "a cat, red ground", "There is one ground: I take “red”, not “blue”."),
    ("make the ground red and remove the sign", "make the ground red", "I make one change at a time: “remove the sign” is left out."),
    ("remove the cat and the dog", "remove the cat", "I make one change at a time: “dog” is left out."),
    ("swap the cat and the dog", "replace the cat with a dog", "I read this as “replace the cat with a dog”."),
    ("make the cat blue", "make the ground blue", "I can make the ground another colour"), ("add a dog", "add a dog", "On which side?"),
    ("move the cat", "move the cat", "To which side?"), ("replace the cat", "cat", "or replace it with another"),
])
def test_what_is_not_clear(typed, read, said):
    text, remarks = read_prompt(typed)
    assert text == read and len(remarks) == 1 and said in remarks[0], remarks


@pytest.mark.parametrize("typed", ["hello world", "a zebra", "ein Hund auf blau", "42", "?!", "🐱", "x" * (LONGEST + 1), "no cat"])
def test_what_is_understood_not_at_all_stays_and_says_so(typed):
    text, remarks = read_prompt(typed)
    assert text == typed.lower() and "I understand nothing of this; I know captions such as “" in remarks[-1]


def test_many_unknown_words_make_one_sentence():
    _, remarks = read_prompt("a cat " + " ".join(f"qu{chr(97 + i // 26)}{chr(97 + i % 26)}x" for i in range(60)))
    assert len(remarks) == 1 and remarks[0].endswith("and 57 more of these words not either.")


# ---------------------------------------------------------------- for every text

WORDS = [*WORLD.nouns[:6], "cats", "buses", *WORLD.backgrounds, "ground", "sign", "KITE", "K", "a", "A", "two", "3", "left", "right", "on", "the",
         "and", ",", ".", "make", "remove", "replace", "with", "move", "add", "zebra", "no", '"', "some", "of", "swap", "Cat", "’s"]


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=60))
def test_reading_again_changes_nothing(text):
    once, _ = read_prompt(text)
    again, _ = read_prompt(once)
    assert again == once or once == " ".join(text.split()).lower().rstrip("."), "what is written is in the grammar"


@pytest.mark.parametrize("typed, word, remarks", [
    ("cat", "cat", 0), ("A cat.", "cat", 0), ("CATS", "cat", 0), ("seven", "seven", 0), ("the owl", "owl", 0), ("yellow", "yellow", 0),
    ("two cats on the left", "cat", 1), ("a dog, red ground", "dog", 1), ("red ground", "red", 1), ("hello", "hello", 1),
])
def test_one_word_is_spoken(typed, word, remarks):
    found, said = read_word(typed)
    assert found == word and len(said) == remarks


def test_random_prompts_are_captions():
    rng = np.random.default_rng(0)
    assert all(read_prompt(text) == (text, ()) for text in (random_prompt(rng) for _ in range(50)))
    assert read_prompt(random_prompt(rng, OTHER), OTHER)[1] == ()


def test_another_world_is_read_by_its_own_words():
    assert read_prompt("2 leaves and a Hot Air Balloon; NIGHT SKY, label stop", OTHER) == (
        "two leaves on the left, a hot air balloon on the right, night sky, label STOP", ())
    assert "I learned only the signs STOP, GO" in read_prompt("label KITE", OTHER)[1][0]
    assert read_prompt("a cat", OTHER)[1][0].startswith("I know no “cat”")


# ---------------------------------------------------------------- what is said in a conversation

@pytest.mark.parametrize("split", OUTSIDE_SPLITS)
def test_all_that_conversations_are_made_of_stays_as_it_is(split):
    parts = [part for talk in dialogues(300, split) for turn in talk for part in (*turn.given, turn.answer)]
    texts = {part.value for part in parts if part.kind in ("text", "spoken")}
    assert len(texts) > 250 and "write down what I say" in texts and any(text.startswith(ALOUD) for text in texts)
    for text in texts:
        assert read_request(text) == (text, ()), text


@pytest.mark.parametrize("world", [WORLD, OTHER], ids=["course", "other"])
def test_captions_questions_and_instructions_stay_as_they_are_in_a_conversation(world):
    rng = np.random.default_rng(0)
    for _ in range(200):
        scene = world.sample(rng, "any")
        asked = [sample_question(rng, scene, world=world).text, sample_edit(rng, world=world).instruction, partial_caption(scene, rng, world)]
        for text in (*asked, *(ALOUD + text for text in asked), world.caption(scene), f"draw {world.caption(scene)}", *world.words):
            assert read_request(text, world) == (text, ()), text


@pytest.mark.parametrize("typed, read", [
    ("A CAT ON THE LEFT, BLUE GROUND", "a cat on the left, blue ground"), ("Two cats,blue ground", "two cats, blue ground"),
    ("A cat on the left. Blue ground!", "a cat on the left, blue ground"), ("“two cats” on the [left]", "two cats on the left"),
    ("(a cat) ,  a dog ;blue ground", "a cat, a dog, blue ground"), ("a\u200b c\u200bat on\u00a0the le\u00adft", "a cat on the left"),
    ("ａ ｃａｔ", "a cat"), ("CAT", "cat"), ("FIVE!", "five"), ("draw TWO cats", "draw two cats"), ("the dogs' house", "the dogs house"),
    ("2 cats on the left", "two cats on the left"), ("1 owl and 1 dog", "an owl and a dog"), ("one ant on the left", "an ant on the left"),
    ("say 7", "say seven"), ("draw 12 cats at 5.30", "draw 12 cats at 5.30"), ("a owl", "an owl"), ("replace the owl with an dog", "replace the owl with a dog"),
    ("how many Cats are there", "how many cats are there?"), ("HOW MANY CATS ARE THERE ??", "how many cats are there?"),
    ("is there 1 cat", "is there a cat?"), ("What's on the left", "what is on the left?"), ("whats on the left?!", "what is on the left?"),
    ("where’s the cat.", "where is the cat?"), ("what color is the ground", "what colour is the ground?"), ("AM I A CAT", "am I a cat"),
    ("what do i see on the left", "what do I see on the left?"), ("write down what i say", "write down what I say"), ("do it again", "do it again"),
    ("Tell me how many cats are there", "tell me: how many cats are there?"), ("tell me, name it", "tell me: name it"), ("tell me", "tell me"),
    ("Please draw a cat", "draw a cat"), ("draw a cat, please!", "draw a cat"), ("Can you please draw a cat?", "draw a cat"),
    ("Could you see a cat", "do you see a cat?"), ("Please, can you see a cat?", "do you see a cat?"), ("now make the ground green, please please", "make the ground green"),
    ("and how many dogs are there", "how many dogs are there?"), ("please", "please"), ("Please, please", "please"), ("a cat?", "a cat?"),
])
def test_what_is_typed_sloppily_becomes_the_grammars(typed, read):
    assert read_request(typed) == (read, ()) == read_request(read)


@pytest.mark.parametrize("typed, read", [
    *((f"{before}sign {sign}{after}", f"{before}sign K I T E{after.rstrip('.!')}") for before in ("", "a cat on the left, ") for after in ("", ", a dog", ".")
      for sign in ("KITE", '"Kite"', "“kite”", "'KITE'", "K I T E", "K.I.T.E", "K-I-T-E", "k-i-t-e", "k i t e", "K, I, T, E", "kite", "(KITE)", "KI\u200bTE")),
    ("SIGN KITE, A CAT", "sign K I T E, a cat"), ("sign K I T E, A cat", "sign K I T E, a cat"), ("sign DOG, a dog", "sign D O G, a dog"),
    ("make the sign kite", "make the sign K I T E"), ("make the sign KITE please", "make the sign K I T E"), ("a sign that says KITE", "a sign that says K I T E"),
    ("put STOP on the sign", "put S T O P on the sign"), ("KITE", "K I T E"), ("a cat, “Kite”", "a cat, K I T E"),
    ("what does the sign SAY?", "what does the sign say?"), ("what does the sign say", "what does the sign say?"), ("remove the sign NOW", "remove the sign now"),
    ("make the sign red", "make the sign red"), ("a BIG cat", "a big cat"), ("say HELLO", "say hello"), ("draw a ZOO", "draw a zoo"), ("I SEE A HOUSE, HELLO", "I see a house, hello"), ("sign kites and ropes", "sign kites and ropes"),
])
def test_signs_in_a_conversation(typed, read):
    assert read_request(typed) == (read, ()) == read_request(read)


def test_every_word_that_became_another_is_said_once():
    assert read_request("An automobile and two kittens, kittens on the LEFT") == (
        "a car and two cats, cats on the left", ("I read “automobile” as “car”.", "I read “kittens” as “cats”."))
    assert read_request("make the background gray") == (
        "make the ground grey", ("I read “background” as “ground”.", "I read “gray” as “grey”."))
    for old, new in SYNONYMS.items():
        assert read_request(f"where is the {old}?") == (f"where is the {new}?", (f"I read “{old}” as “{new}”.",))


def test_a_conversation_about_another_world_has_its_words():
    world = World({"UFO": "🛸", "pine": "🌲"}, {"dawn": (250, 180, 150), "night": (20, 20, 60)}, grammar=Grammar("sky"))
    assert read_request("Remove the UFO", world) == ("remove the UFO", ())
    assert read_request("Make the Sky NIGHT; a kitten", world) == ("make the sky night, a kitten", ())
    assert read_request("make the ground dawn", world) == ("make the sky dawn", ("I read “ground” as “sky”.",))
    assert read_request("Make the label “stop”", OTHER) == ("make the label STOP", ())
    assert read_request("MAKE THE LABEL GO", OTHER) == ("make the label GO", ())


ODD = "ABCxyz019 .,;:!?'’‘“”\"«»()[]{}*_-/&+=\n\t\u200b\u00a0éßİıﬁ²①中🐱Ｋ"


@given(st.lists(st.sampled_from([*WORDS, "please", "what", "tell", "me", "can", "you", "?", ":", "i", "one", "kittens"]), max_size=12).map(" ".join)
       | st.text(max_size=60) | st.text(ODD, max_size=30))
def test_any_request_is_read(text):
    said, remarks = read_request(text)
    assert said == " ".join(said.split()) and all(remark.startswith("I read “") for remark in remarks)
    assert said or not prompts.visible(text).split(), "what was said is not lost"
    assert not read_request(said)[1], "what became another word is a word of the world"


def test_a_request_of_too_many_characters_is_refused():
    assert read_request("x" * LONGEST)[0] == "x" * LONGEST == read_request("x" * LONGEST + " " * LONGEST)[0]
    with pytest.raises(ValueError, match="2,001 characters are more than anybody says at once: write at most 2,000"):
        read_request("x" * (LONGEST + 1))
