"""Conversations: every answer follows from what was given, by a reader that does not know how they were made."""
import re
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from mmcourse.world import outside
from mmcourse.world.dialogues import (
    ALOUD,
    KINDS,
    LONGEST_ANSWER,
    LONGEST_REQUEST,
    REFUSALS,
    SPOKEN,
    TURNS,
    UNKNOWN,
    WRITE,
    Part,
    about_another,
    dialogues,
    sample_dialogue,
    seconds,
    spoken_texts,
)
from mmcourse.world.outside import (
    OUTSIDE_SPLITS,
    PICTURES,
    SOUNDS,
    UNANSWERABLE,
    UNKNOWN_WORDS,
    outside_picture,
    outside_sound,
)
from mmcourse.world.prompts import SYNONYMS
from mmcourse.world.rules import SignRule
from mmcourse.world.scene import BACKGROUNDS, COUNTS, NOUNS, PLACES, WORDS, WORLD, Group, World, plural
from tests.world.test_phrases import pairs, signs
from tests.world.test_questions import SINGULAR, answered

MANY = {"train": 900, "validation": 250, "test": 250}
STRANGE = {name for words in UNKNOWN_WORDS.values() for word in words for name in (word, plural(word))}


@cache
def talks(split="train"):
    return dialogues(MANY[split], split)


def turns(split="train"):
    return [turn for talk in talks(split) for turn in talk]


def said(turn) -> list[str]:
    """All texts of a turn, typed or spoken, the answer's too."""
    return [part.value for part in (*turn.given, turn.answer) if part.kind in ("text", "spoken")]


def request(turn) -> str:
    """What the user asks; "" if nothing was said."""
    texts = [part.value for part in turn.given if part.kind in ("text", "spoken")]
    return texts[-1] if texts else ""


# ---------------------------------------------------------------- the answer, found anew

def changed(text: str, scene):
    """The scene after an instruction, by its words alone."""
    things = list(scene.groups)
    if found := re.fullmatch(r"make the ground (\w+)", text):
        return replace(scene, background=found[1])
    if found := re.fullmatch(r"make the sign ([A-Z ]+)|remove the sign", text):
        return replace(scene, sign=(found[1] or "").replace(" ", ""))
    if found := re.fullmatch(r"replace the (\w+) with (?:an? )?(\w+)", text):
        old, new = SINGULAR[found[1]], SINGULAR[found[2]]
        return replace(scene, groups=tuple(replace(group, noun=new if group.noun == old else group.noun) for group in things))
    if found := re.fullmatch(r"add (a|an|two) (\w+) on the (\w+)", text):
        new = Group(SINGULAR[found[2]], 2 if found[1] == "two" else 1, found[3])
        return replace(scene, groups=tuple(sorted([*things, new], key=lambda group: PLACES.index(group.place))))
    if found := re.fullmatch(r"remove the (\w+)", text):
        return replace(scene, groups=tuple(group for group in things if group.noun != SINGULAR[found[1]]))
    if found := re.fullmatch(r"move the (\w+) to the (\w+)", text):
        assert [group.noun for group in things] == [SINGULAR[found[1]]]
        return replace(scene, groups=(replace(things[0], place=found[2]),))
    return None


def drawn(text: str):
    """The scene that a request to draw asks for; None if it is none."""
    if found := re.fullmatch(r"what is an? (\w+)\?", text):
        return WORLD.parse(f"{WORLD.describe(Group(found[1], 1, 'left'))}, white ground")
    text = text.removeprefix("draw ")
    try:
        return WORLD.parse(text if " ground" in text else f"{text}, white ground")
    except (ValueError, IndexError):
        return None


def looked_at(text: str, picture) -> str:
    """The answer to a question about a picture."""
    if text in ("describe it", "describe the picture", "what is in the picture?"):
        return WORLD.caption(picture)
    if text in ("name it", "what is it?"):
        (group,) = picture.groups
        return group.noun
    return answered(text, picture)


def right_answer(turn, picture) -> Part:
    """The answer to a turn; `picture`: what was shown or drawn last."""
    kinds, text = [part.kind for part in turn.given], request(turn)
    if "outside" in kinds or set(re.findall(r"\w+", text)) & STRANGE:
        return Part("text", UNKNOWN)
    if turn.given[0] == Part("text", WRITE) or turn.given[0].kind == "spoken" and text in WORDS:
        return Part("text", text)
    if text.startswith("say "):
        return Part("spoken", text.removeprefix("say "))
    if (scene := drawn(text)) is not None:
        return Part("image", scene)
    plain = text.removeprefix(ALOUD)
    hopeless = any(re.fullmatch(form.replace("?", r"\?").format(r"\w+"), plain) for form in sum(UNANSWERABLE.values(), ()))
    if picture is None or hopeless:
        return Part("text", UNKNOWN)
    if (scene := changed(plain, picture)) is not None:
        return Part("image", scene)
    return Part("spoken" if text.startswith(ALOUD) else "text", looked_at(plain, picture))


@pytest.mark.parametrize("split", MANY)
def test_every_answer_follows_from_what_was_given(split):
    for talk in talks(split):
        picture, since = None, None
        for number, turn in enumerate(talk):
            for part in turn.given:
                if part.kind == "image":
                    picture, since = part.value, number
                elif part.value in PICTURES:
                    picture, since = None, None
            assert turn.answer == right_answer(turn, picture), (talk, number)
            assert turn.about in (None, since)
            if turn.kind in ("change", "ask", "describe", "name"):
                assert turn.about == since is not None, "what is asked about is known"
            if turn.answer.kind == "image":
                picture, since = turn.answer.value, number


def test_the_reader_of_this_test_notices_a_wrong_answer():
    turn = next(turn for turn in turns() if turn.kind == "change" and turn.given[0].kind == "image" and "ground" in request(turn))
    wrong = replace(turn, answer=Part("image", turn.given[0].value))
    assert right_answer(wrong, turn.given[0].value) == turn.answer != wrong.answer


# ---------------------------------------------------------------- splits

def test_training_shows_and_says_nothing_that_is_held_out():
    scenes = [part.value for turn in turns() for part in (*turn.given, turn.answer) if part.kind == "image"]
    assert len(scenes) > 1000 and {WORLD.split_of(scene) for scene in scenes} == {"train"}
    texts = [text for turn in turns() for text in said(turn)]
    named, spelled = [pair for text in texts for pair in pairs(text)], [sign for text in texts for sign in signs(text)]
    assert len(named) > 300 and {WORLD.pair_split(*pair) for pair in named} == {"train"}
    assert len(spelled) > 100 and {WORLD.sign_split(sign) for sign in spelled} == {"train"}


@pytest.mark.parametrize("split, allowed", [("validation", {"train", "validation"}), ("test", {"train", "validation", "test"})])
def test_other_splits_show_what_is_theirs_and_validation_nothing_of_the_test(split, allowed):
    scenes = [part.value for turn in turns(split) for part in (*turn.given, turn.answer) if part.kind == "image"]
    found = Counter(WORLD.split_of(scene) for scene in scenes)
    assert set(found) <= allowed and found[split] > 0.5 * len(scenes)


def test_what_is_outside_is_another_in_each_split():
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not set(UNKNOWN_WORDS[one]) & set(UNKNOWN_WORDS[other]) and not set(UNANSWERABLE[one]) & set(UNANSWERABLE[other])
        assert outside.NOISE_PICTURES[one] is not outside.NOISE_PICTURES[other]
        assert outside.NOISE_SOUNDS[one] is not outside.NOISE_SOUNDS[other]
    every = sum(UNKNOWN_WORDS.values(), ())
    known = {*WORDS, *map(plural, NOUNS), *SYNONYMS, *COUNTS}
    assert len(set(every)) == len(every) and not (set(every) | STRANGE) & known
    for split in OUTSIDE_SPLITS:
        strange = {word for turn in turns(split) for word in re.findall(r"[a-z]+", request(turn)) if word in STRANGE}
        mine = {name for word in UNKNOWN_WORDS[split] for name in (word, plural(word))}
        assert strange and strange <= mine


def test_photographs_are_others_in_each_split():
    pytest.importorskip("skimage")
    photos = {split: outside.outside_photos(split) for split in OUTSIDE_SPLITS}
    assert len(photos["train"]) == 27 and min(len(photos["validation"]), len(photos["test"])) >= 3
    seen = [photo.numpy().tobytes() for split in OUTSIDE_SPLITS for photo in photos[split]]
    assert len(set(seen)) == len(seen)


# ---------------------------------------------------------------- balance

def test_kinds_of_turn_come_in_their_shares():
    found, every = Counter(turn.kind for turn in turns()), len(turns())
    assert sum(KINDS.values()) == pytest.approx(1) and sum(TURNS) == pytest.approx(1)
    for kind, share in KINDS.items():
        assert found[kind] / every == pytest.approx(share, abs=0.025)
    assert {turn.why for turn in turns() if turn.kind == "refuse"} == set(REFUSALS)
    assert all((turn.kind == "refuse") == (turn.why != "") == (turn.answer == Part("text", UNKNOWN)) for turn in turns())
    assert Counter(len(talk) for talk in talks()).keys() == {1, 2, 3, 4}


def test_a_request_that_can_be_spoken_is_spoken_in_its_share_and_none_is_long():
    texts = spoken_texts(talks())
    assert max(map(seconds, texts["given"])) <= LONGEST_REQUEST and max(map(seconds, texts["answer"])) <= LONGEST_ANSWER
    free = [turn.given[-1].kind for turn in turns() if turn.kind in ("draw", "change", "ask", "say")
            and seconds(request(turn)) <= LONGEST_REQUEST]
    assert np.mean([kind == "spoken" for kind in free]) == pytest.approx(SPOKEN, abs=0.04)
    assert {turn.answer.kind for turn in turns() if turn.kind == "ask"} == {"text", "spoken"}
    assert any(signs(text) for text in texts["given"]) and any(text.startswith(ALOUD) for text in texts["given"])


def form(text: str) -> str:
    """A request without its names: what things, which ground, which letters."""
    names = "|".join(sorted({*NOUNS, *map(plural, NOUNS), *STRANGE, *WORDS} - {*BACKGROUNDS, *PLACES}, key=len, reverse=True))
    text = re.sub(rf"\b(an? )?({names})\b", "THING", re.sub(r"\b[A-Z]( [A-Z])*\b", "SIGN", text.removeprefix(ALOUD)))
    return re.sub(rf"\b({'|'.join(BACKGROUNDS)})\b", "COLOUR", re.sub(r"\b(two|three|four) THING", "THING", text))


def shape(turn) -> tuple:
    """What a turn gives, a picture or sound from outside taken for one from inside."""
    kinds = [part.kind if part.kind != "outside" else "image" if part.value in PICTURES else "spoken" for part in turn.given]
    return tuple("text" if kind == "spoken" and len(kinds) > i + 1 else kind for i, kind in enumerate(kinds))


def test_each_refusal_has_a_twin_inside_that_looks_alike():
    """The same words about another picture or thing, given in the same way, are answered: nothing but what it is about tells."""
    inside = {(shape(turn), form(request(turn))) for turn in turns() if turn.kind != "refuse"}
    heard = {shape(turn) for turn in turns() if turn.kind == "write"}
    alike = Counter()
    for turn in turns():
        if turn.why in SOUNDS:
            assert shape(turn) in heard
        elif turn.why in PICTURES or turn.why in ("no picture", "unknown word"):
            alike[(shape(turn), form(request(turn))) in inside] += 1
    assert alike[True] > 100 and alike[False] < 0.05 * alike[True], "a rare request may have no twin among so few"
    for turn in turns():
        if turn.why == "unanswerable":
            assert turn.about is not None and any(noun in request(turn).split(" ") or f"{noun}?" in request(turn) for noun in NOUNS)


def test_a_thing_of_the_world_that_is_not_there_is_no_reason_to_refuse():
    answers = Counter(turn.answer.value for turn in turns() if turn.kind == "ask")
    assert min(answers["no"], answers["none"], answers["nothing"], answers["there is no sign"]) > 3
    assert any(re.fullmatch(f"there is no ({'|'.join(NOUNS)})", answer) for answer in answers)


def test_about_another_thing():
    assert about_another("replace the cat with an owl", "owl", "zebra") == "replace the cat with a zebra"
    assert about_another("how many cats are there?", "cat", "arrow") == "how many arrows are there?"
    assert about_another("draw a cat on the left", "cat", "arrow") == "draw an arrow on the left"
    assert about_another("a carrot on the left", "car", "zebra") == "a carrot on the left"


# ---------------------------------------------------------------- what is outside

@pytest.mark.parametrize("split", OUTSIDE_SPLITS)
def test_pictures_and_sounds_from_outside(split):
    pytest.importorskip("skimage")
    rng = np.random.default_rng(1)
    for name in PICTURES:
        pictures = torch.stack([outside_picture(rng, name, split) for _ in range(6)])
        assert pictures.shape == (6, 3, 64, 64) and pictures.dtype == torch.float32 and 0 <= pictures.min() <= pictures.max() <= 1
        flat = pictures.flatten(2).std(2).amax(1)
        assert (flat < 1e-6).all() if name == "plain picture" else (flat > 0.01).all()
    for name in SOUNDS:
        sounds = [outside_sound(rng, name, split) for _ in range(6)]
        assert all(2400 <= len(sound) <= 16000 and sound.dtype == np.float32 and np.abs(sound).max() < 1 for sound in sounds)
        loud = [float(np.sqrt(np.mean(sound.astype(float) ** 2))) for sound in sounds]
        assert max(loud) < 0.002 if name == "silence" else min(loud) > 0.02
    again = outside_picture(np.random.default_rng(5), "noise picture", split)
    assert torch.equal(again, outside_picture(np.random.default_rng(5), "noise picture", split))


# ---------------------------------------------------------------- the rest

def test_a_conversation_is_the_same_however_many_there_are_and_no_two_are_alike():
    assert dialogues(20) == talks()[:20]
    assert len({repr(talk) for talk in talks()}) > 0.98 * len(talks())
    assert dialogues(5, "validation") != dialogues(5, "test")


@pytest.mark.parametrize("world", [
    World({}, {"white": (255, 255, 255), "red": (200, 0, 0)}, kinds=(0,)),
    World({noun: "🐱" for noun in ("cat", "dog", "owl")}, {"red": (200, 0, 0), "blue": (0, 0, 200), "black": (0, 0, 0)},
          kinds=(1,), signs=SignRule(share=0.0)),
    World({noun: "🐱" for noun in ("cat", "dog", "owl")}, {"red": (200, 0, 0), "blue": (0, 0, 200)}, kinds=(2,)),
], ids=["signs alone", "no signs", "two kinds"])
def test_another_world_converses_too(world):
    rng = np.random.default_rng(0)
    found = [turn for _ in range(60) for turn in sample_dialogue(rng, "train", world)]
    assert {turn.kind for turn in found} >= {"draw", "change", "ask", "describe", "write", "say", "refuse"}
    for turn in found:
        for part in (*turn.given, turn.answer):
            if part.kind == "image":
                assert world.split_of(part.value) == "train"


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="splits train, validation, test, got 'held-out'"):
        sample_dialogue(np.random.default_rng(0), "held-out")
    with pytest.raises(ValueError, match="one of photograph, noise picture, plain picture, got 'painting'"):
        outside_picture(np.random.default_rng(0), "painting")
    with pytest.raises(ValueError, match="one of silence, noise, got 'music'"):
        outside_sound(np.random.default_rng(0), "music")


def test_without_photographs_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(outside, "album", lambda: ([], {}))
    outside.outside_photos.cache_clear()
    with pytest.raises(ImportError, match="pip install scikit-image"):
        outside.outside_photos("train")
