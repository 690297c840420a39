"""Conversations are asked and marked: true answers are right, others are not, and rows are counted as they are named."""
from helpers import pictures_of_now

from mmcourse import checkpoints
from mmcourse.experiments import talking
from mmcourse.experiments.conversations import Talks, modality, told
from mmcourse.experiments.talking import Asked, ask_through, ask_turns, marked, refused, rows
from mmcourse.judges import PictureReader
from mmcourse.vocabulary import Segment
from mmcourse.world.dialogues import UNKNOWN, Part, Turn


def every_turn(few_talks) -> list[Asked]:
    words = Talks(few_talks.bpe, few_talks.vocabulary, "validation", len(few_talks.talks))
    return [Asked(turn, answer) for talk in few_talks.talks for turn, (_, answer) in zip(talk, words.turns(talk), strict=True)]


def true_pictures(few_talks, monkeypatch) -> None:
    """Whatever is to be drawn is drawn as its words say."""
    def draw(model, vocabulary, replies):
        from mmcourse.world.pictures import draw_batch
        from mmcourse.world.scene import WORLD
        scenes = [WORLD.parse(few_talks.bpe.decode(answer[-1].ids).strip()) for answer in replies]
        return [Segment("image", tuple(ids.flatten().tolist())) for ids in few_talks.vqvae.encode(draw_batch(scenes))]
    monkeypatch.setattr(talking, "draw_or_speak", draw)


def test_true_answers_are_right_and_those_of_others_are_not(few_talks, monkeypatch):
    true_pictures(few_talks, monkeypatch)
    turns = every_turn(few_talks)
    asked = marked(None, few_talks, turns, PictureReader())
    by_kind = {kind: [each for each in asked if each.answer[0].modality == kind] for kind in ("text", "image", "audio")}
    assert all(each.right for each in asked) and all(by_kind.values())
    for same in by_kind.values():
        swapped = marked(None, few_talks, [Asked(a.turn, b.answer) for a, b in zip(same, same[1:] + same[:1])
                                      if a.turn.answer.value != b.turn.answer.value], PictureReader())
        assert swapped and not any(each.right for each in swapped)


def test_an_answer_of_another_kind_is_never_right(few_talks, monkeypatch):
    true_pictures(few_talks, monkeypatch)
    spoken = [Asked(each.turn, each.answer[1:]) for each in every_turn(few_talks) if each.answer[0].modality == "audio"]
    assert spoken and not any(each.right for each in marked(None, few_talks, spoken, PictureReader())), "written, not said"


def test_rows_are_named_by_what_was_asked_and_how(few_talks):
    yes = Segment("text", tuple(few_talks.bpe.encode(" yes")))
    unknown = Segment("text", tuple(few_talks.bpe.encode(" " + UNKNOWN)))
    typed = Turn((Part("text", "is there a cat?"),), Part("text", "yes"), "ask")
    aloud = Turn((Part("spoken", "tell me: is there a cat?"),), Part("spoken", "yes"), "ask")
    noise = Turn((Part("outside", "noise"),), Part("text", UNKNOWN), "refuse", "noise")
    asked = [Asked(typed, [yes], True), Asked(typed, [unknown]), Asked(aloud, [Segment("audio", ()), yes], True), Asked(noise, [unknown], True)]
    assert [refused(few_talks, each) for each in asked] == [False, True, False, True]
    assert rows(few_talks, asked) == {
        "ask": {"n": 3, "right": 2, "kind": 3, "refused": 1}, "ask: spoken, answered aloud": {"n": 1, "right": 1, "kind": 1, "refused": 0},
        "ask: typed": {"n": 2, "right": 1, "kind": 2, "refused": 1}, "inside": {"n": 3, "right": 2, "kind": 3, "refused": 1},
        "outside": {"n": 1, "right": 1, "kind": 1, "refused": 1}, "outside: noise": {"n": 1, "right": 1, "kind": 1, "refused": 1}}


def test_each_turn_is_asked_about_the_true_picture_of_now(few_talks, monkeypatch):
    """Whatever the model sees, hears and answers: here always the one word `misread`."""
    misread, seen = Segment("text", (1,)), []
    monkeypatch.setattr(talking, "perceive", lambda model, vocabulary, given: [
        [segment] if segment.modality == "text" else [Segment(segment.modality, ()), misread] for segment in given])
    monkeypatch.setattr(talking, "reply", lambda model, vocabulary, talks: seen.extend(talks) or [[misread] for _ in talks])
    asked = ask_turns(None, few_talks)
    assert [each.turn for each in asked] == [turn for talk in few_talks.talks for turn in talk] and not any(each.right for each in asked)
    prompts, states = iter(seen), set()
    for turn, now in ((turn, now) for talk in few_talks.talks for turn, now in zip(talk, pictures_of_now(talk))):
        given, shown = [], any(modality(part) == "image" for part in turn.given)
        for part in turn.given:
            given += ([Segment("text", tuple(few_talks.bpe.encode(" " + part.value)))] if part.kind == "text" else
                      [Segment(modality(part), ()), misread])
        before = [] if now is None or shown else [Segment("image", ()), Segment("text", tuple(few_talks.bpe.encode(" " + told(now))))]
        assert next(prompts) == before + given
        states.add((now and now.kind, shown))
    assert next(prompts, None) is None and {(None, False), (None, True), ("image", False), ("image", True)} <= states


def test_a_conversation_goes_on_about_the_models_own_pictures(few_talks, monkeypatch):
    """Whatever the model sees and hears is `misread`, and whatever it answers is a picture that it calls `drawn`."""
    misread, drawn, seen = Segment("text", (1,)), [Segment("image", ()), Segment("text", (2,))], []
    monkeypatch.setattr(talking, "perceive", lambda model, vocabulary, given: [
        [segment] if segment.modality == "text" else [Segment(segment.modality, ()), misread] for segment in given])
    monkeypatch.setattr(talking, "reply", lambda model, vocabulary, talks: seen.extend(talks) or [drawn for _ in talks])
    monkeypatch.setattr(talking, "draw_or_speak", lambda model, vocabulary, replies: [Segment("image", (0,) * 64) for _ in replies])
    asked = ask_through(None, few_talks)
    assert [[each.turn for each in talk] for talk in asked] == [list(talk) for talk in few_talks.talks]
    first = seen[:len(few_talks.talks)]
    assert not any(drawn[-1] in prompt for prompt in first) and len(seen) == sum(map(len, few_talks.talks))
    later = [talk[number] for number in range(1, max(map(len, few_talks.talks))) for talk in few_talks.talks if number < len(talk)]
    for turn, prompt in zip(later, seen[len(few_talks.talks):], strict=True):
        shown = any(modality(part) == "image" for part in turn.given)
        assert (prompt[:2] == drawn) == (not shown), "the picture of now is its own, unless another one is shown"


def test_the_vocabulary_is_the_shipped_models(few_talks):
    assert few_talks.vocabulary.config == checkpoints.manifest()["transformer"]["vocabulary"]
