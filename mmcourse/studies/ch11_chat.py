"""Does the shipped model converse? Phrases, questions, drawings, changes, spoken answers and refusals. About 20 CPU minutes.

The model of `mmcourse train chat` is asked every turn of conversations of the test split, after the true turns before it in
words: it describes what it sees and writes down what it hears, decides of which kind its answer is, and draws or speaks it, in
one try each time. Voices, unknown words, photographs, noise and the
wordings of what nobody can answer are of another make than in training. Written down before it ran:

- C1: phrases that unheard voices say are written down with at most 10 % of the words wrong.
- C2: at least 95 % of the questions are answered right by text, at least 85 % where the answer is spoken.
- C3: at least 90 % of what is not of the world is refused, and at most 3 % of what is.
- C4: the pre-trained model, asked the same, does none of this: it never saw a conversation.

Rows: `phrases` by sort, words wrong of all said; `turns`: of each kind of turn how many are right, of how many the kind of
answer is, and how many are refused; `spoken`: the same answers in the ears of the report listener beside true clips after the
same trip through the tokens; `whole`: conversations that are right from the first turn to the last, on the model's own answers.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import numpy as np

from mmcourse import checkpoints
from mmcourse.assistant import painted, sounded
from mmcourse.chat import first_that_fits, perceive, render, reply, room_for_talk
from mmcourse.dataset import speech_tokens
from mmcourse.experiments.conversations import LEVELS, Conversations, Talks
from mmcourse.generate import generate
from mmcourse.judges import PictureReader
from mmcourse.judges.phrase_listener import word_errors, words_of
from mmcourse.recipes.chat import longer
from mmcourse.studies import Job, Study
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import Segment
from mmcourse.world.dialogues import UNKNOWN, Turn
from mmcourse.world.phrases import load_phrases

TEST_SEED = 1018


@dataclass(frozen=True)
class Plan:
    """What decides the numbers. `split`: of conversations and phrases."""
    talks: int = 300
    begun: int = 100        # conversations that are asked of the model before
    phrases: int = 1000
    outside: int = 100
    split: str = "test"


@dataclass
class Asked:
    """A turn that was asked, and what came."""
    turn: Turn
    truth: Segment
    answer: Segment
    right: bool = False

    @property
    def by_voice(self) -> bool:
        """Whether it was spoken by the user."""
        return any(part.kind == "spoken" for part in self.turn.given)


def model_of(name: str) -> Transformer:
    """The model that converses (`chat`) or the one before it (`transformer`), with room for a conversation."""
    model = checkpoints.load(name)
    return model if name == "chat" else longer(model)


@cache
def talks_of(plan: Plan) -> Conversations:
    """The conversations that are asked, with their pictures and sounds."""
    return Conversations(plan.split, plan.talks, plan.outside, progress=False)


def in_words(data: Conversations) -> Talks:
    """The same as they stand in a conversation."""
    return Talks(data.bpe, data.vocabulary, data.split, len(data.talks))


def answered(model: Transformer, data: Conversations, before: list[list[list[Segment]]], turns: list[Turn],
             rng: np.random.Generator) -> tuple[list[list[Segment]], list[Asked]]:
    """Each turn asked after those `before` it (as they stand): how it stands itself, and what came."""
    given = [data.given(turn, rng) for turn in turns]
    seen = iter(perceive(model, data.vocabulary, [segment for parts in given for segment in parts]))
    asked = [[segment for _ in parts for segment in next(seen)] for parts in given]
    room, talks = room_for_talk(data.vocabulary, model.context), []
    for history, now in zip(before, asked, strict=True):
        whole = [*history, now]
        talks.append([segment for turn in whole[first_that_fits(whole, room):] for segment in turn])
    said = reply(model, data.vocabulary, talks)
    truths = [data.segment(turn.answer, rng, answer=True) for turn in turns]
    found = [Asked(*each) for each in zip(turns, truths, render(model, data.vocabulary, said))]
    return [[*now, *words] for now, words in zip(asked, said)], marked(data, found)


def ask_turns(model: Transformer, plan: Plan) -> list[Asked]:
    """Every turn after the true ones before it."""
    data, rng = talks_of(plan), np.random.default_rng(TEST_SEED)
    words, before, turns = in_words(data), [], []
    for talk in data.talks:
        told = [[*given, *answer] for given, answer in map(words.turn, talk)]
        before += [told[:number] for number in range(len(talk))]
        turns += talk
    return answered(model, data, before, turns, rng)[1]


def marked(data: Conversations, asked: list[Asked]) -> list[Asked]:
    """Which answers are right: text to the letter, the whole scene by templates, the words of a voice by the report listener."""
    for kind in ("text", "image", "audio"):
        same = [each for each in asked if each.answer.modality == each.truth.modality == kind]
        if not same:
            continue
        answers = [each.answer for each in same]
        if kind == "text":
            found = [data.bpe.decode(answer.ids).strip() for answer in answers]
            truths = [each.turn.answer.value for each in same]
        elif kind == "image":
            found, truths = reader().read(painted(data.vqvae, answers)), [each.turn.answer.value for each in same]
        else:
            found = [heard.split() for heard in listener().hear(sounded(data.codec, answers))]
            truths = [words_of(each.turn.answer.value) for each in same]
        for each, what, truth in zip(same, found, truths, strict=True):
            each.right = what == truth
    return asked


@cache
def reader() -> PictureReader:
    """The templates."""
    return PictureReader()


@cache
def listener():
    """The report judge of phrases."""
    return checkpoints.load("phrase_listener")


def refused(data: Conversations, asked: Asked) -> bool:
    """Whether the answer is that it does not know."""
    return asked.answer.modality == "text" and data.bpe.decode(asked.answer.ids).strip() == UNKNOWN


def group_of(asked: Asked) -> list[str]:
    """The rows that a turn belongs to."""
    turn = asked.turn
    if turn.kind == "refuse":
        return ["outside", f"outside: {turn.why}"]
    how = ("spoken" if asked.by_voice else "typed") + (", answered aloud" if turn.answer.kind == "spoken" else "")
    return ["inside", turn.kind, f"{turn.kind}: {how}"]


def turns(name: str, plan: Plan) -> dict:
    """Every turn of the conversations, by kinds; and the spoken answers beside true ones."""
    data, asked = talks_of(plan), ask_turns(model_of(name), plan)
    rows: dict[str, dict] = {}
    for each in asked:
        for group in group_of(each):
            row = rows.setdefault(group, {"n": 0, "right": 0, "kind": 0, "refused": 0})
            row["n"] += 1
            row["right"] += each.right
            row["kind"] += each.answer.modality == each.truth.modality
            row["refused"] += refused(data, each)
    spoken = [each for each in asked if each.truth.modality == each.answer.modality == "audio"]
    return {"rows": dict(sorted(rows.items())), "spoken": spoken_row(data, spoken)}


def spoken_row(data: Conversations, spoken: list[Asked]) -> dict:
    """Words that the report listener hears wrong, in answers and in true clips after the same tokens."""
    if not spoken:
        return {"answers": 0}
    said = [each.turn.answer.value for each in spoken]
    out = {"answers": len(spoken)}
    for name, segments in (("answer", [each.answer for each in spoken]), ("truth", [each.truth for each in spoken])):
        heard = listener().hear(sounded(data.codec, segments))
        errors = [word_errors(what, text) for what, text in zip(heard, said)]
        out[name] = {"wrong": sum(wrong for wrong, _ in errors), "words": sum(words for _, words in errors),
                     "right": sum(what.split() == words_of(text) for what, text in zip(heard, said))}
    return out


def phrases(name: str, plan: Plan) -> dict:
    """Phrases of unheard voices, written down: words wrong of all said, by sort."""
    corpus, data, model = load_phrases(plan.split, progress=False), talks_of(plan), model_of(name)
    tokens = speech_tokens(data.codec, corpus.clips[:plan.phrases], LEVELS, progress=False)
    prompts = [[Segment("audio", tuple(row.tolist()))] for row in tokens]
    written = [data.bpe.decode(s.ids).strip() for s in generate(model, data.vocabulary, prompts, "text", temperature=0.0)]
    rows: dict[str, dict] = {}
    for text, truth, sort in zip(written, corpus.texts, corpus.sorts):
        wrong, words = word_errors(text, truth)
        for group in ("all", sort):
            row = rows.setdefault(group, {"n": 0, "right": 0, "wrong": 0, "words": 0})
            row["n"], row["right"] = row["n"] + 1, row["right"] + (text == truth)
            row["wrong"], row["words"] = row["wrong"] + wrong, row["words"] + words
    return dict(sorted(rows.items()))


def whole(name: str, plan: Plan) -> dict:
    """Conversations on the model's own answers: by number of turns, how many are right to the end."""
    data, model, rng = talks_of(plan), model_of(name), np.random.default_rng(TEST_SEED)
    right, so_far = [True for _ in data.talks], [[] for _ in data.talks]
    for number in range(max(map(len, data.talks))):
        at = [i for i, talk in enumerate(data.talks) if number < len(talk)]
        stands, found = answered(model, data, [so_far[i] for i in at], [data.talks[i][number] for i in at], rng)
        for i, turn, each in zip(at, stands, found):
            right[i] &= each.right
            so_far[i].append(turn)
    rows: dict[int, dict] = {}
    for talk, good in zip(data.talks, right):
        row = rows.setdefault(len(talk), {"n": 0, "right": 0})
        row["n"], row["right"] = row["n"] + 1, row["right"] + good
    return {str(length): rows[length] for length in sorted(rows)}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """The model that converses, and the one before it."""
    return [Job("turns", partial(turns, "chat", plan), ("chat",)), Job("phrases", partial(phrases, "chat", plan), ("chat",)),
            Job("whole", partial(whole, "chat", plan), ("chat",)),
            Job("before: turns", partial(turns, "transformer", replace(plan, talks=plan.begun)), ("before",), "turns"),
            Job("before: phrases", partial(phrases, "transformer", plan), ("before",), "phrases")]


def head(plan: Plan) -> dict:
    """The plan and the models."""
    return {"plan": asdict(plan), "made with": {name: checkpoints.identity(name)[:8]
                                                for name in ("chat", "transformer", "vqvae", "codec", "phrase_listener")}}


STUDY = Study("ch11_chat", Plan(), Plan(talks=6, begun=4, phrases=6, outside=2, split="validation"), jobs, head, minutes=True)
main = STUDY.run
