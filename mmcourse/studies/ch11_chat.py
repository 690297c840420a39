"""Does the shipped model converse? Phrases, questions, drawings, changes, spoken answers and refusals. About 3 CPU minutes.

The model of `mmcourse train chat` is asked every turn of conversations of the test split, about the true picture of now: it
describes what it sees and writes down what it hears, decides of which kind its answer is and what it says, and draws or speaks
it, in one greedy try each time. Voices, unknown words, photographs, noise and the wordings of what nobody can answer are of
another make than in training. Written down before it ran:

- C1: phrases that unheard voices say are written down with at most 10 % of the words wrong.
- C2: at least 95 % of the questions that are typed are answered right, at least 85 % of those that are spoken.
- C3: at least 90 % of what is not of the world is refused, and at most 3 % of what is.
- C4: of the words of a spoken answer at least 90 % are heard by a listener that knows neither these voices nor this model.
- C5: of what is of the world the model before it, asked the same, gets at most 10 % right: it never saw a conversation.

Rows: `turns`: of each kind of turn how many answers are right (in words; of a picture the whole scene, drawn and read), of how
many the kind of answer is, and how many are refused; `spoken`: the right answers by voice in the ears of the report listener,
beside true clips after the same trip through the tokens; `phrases` by sort, words wrong of all said, and as the same listener
hears the clips before and after that trip; `whole`: conversations that are right from the first turn to the last, about the
model's own pictures.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import numpy as np

from mmcourse import checkpoints
from mmcourse.assistant import sounded
from mmcourse.chat import draw_or_speak
from mmcourse.dataset import speech_tokens
from mmcourse.experiments.conversations import LEVELS, Conversations
from mmcourse.experiments.talking import Asked, ask_through, ask_turns, rows
from mmcourse.generate import generate
from mmcourse.judges.phrase_listener import word_errors, words_of
from mmcourse.recipes.chat import longer
from mmcourse.studies import Job, Study
from mmcourse.studies._ch11 import only_chat_is_new
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import Segment
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


def model_of(name: str) -> Transformer:
    """The model that converses (`chat`) or the one before it (`transformer`), with room for a conversation."""
    model = checkpoints.load(name)
    return model if name == "chat" else longer(model)


@cache
def talks_of(plan: Plan) -> Conversations:
    """The conversations that are asked, with their pictures and sounds."""
    return Conversations(plan.split, plan.talks, plan.outside, progress=False)


@cache
def listener():
    """The report judge of phrases."""
    return checkpoints.load("phrase_listener")


def turns(name: str, plan: Plan) -> dict:
    """Every turn of the conversations, by kinds; and the spoken answers beside true ones."""
    data, model = talks_of(plan), model_of(name)
    asked = ask_turns(model, data, TEST_SEED)
    return {"rows": rows(data, asked), "spoken": spoken_row(data, model, [each for each in asked if by_voice(each)])}


def by_voice(asked: Asked) -> bool:
    """Whether the answer is right and by voice: what it shall be heard to say is known."""
    return asked.right and asked.answer[0].modality == "audio"


def spoken_row(data: Conversations, model: Transformer, spoken: list[Asked]) -> dict:
    """Words that the report listener hears wrong, in spoken answers and in true clips after the same tokens."""
    if not spoken:
        return {"answers": 0}
    rng, out = np.random.default_rng(TEST_SEED), {"answers": len(spoken)}
    said = [each.turn.answer.value for each in spoken]
    made = {"answer": draw_or_speak(model, data.vocabulary, [each.answer for each in spoken]),
            "truth": [data.segment(each.turn.answer, rng, answer=True) for each in spoken]}
    return out | {name: heard_row(sounded(data.codec, segments), said) for name, segments in made.items()}


def heard_row(sounds: list[np.ndarray], said: Sequence[str]) -> dict:
    """What the report listener makes of sounds: words wrong of all that were said, and sounds that are all right."""
    return errors(listener().hear(sounds), said)


def errors(written: Sequence[str], said: Sequence[str]) -> dict:
    """Words wrong of all that were said, and how many texts are all right."""
    wrong, words = map(sum, zip(*(word_errors(*pair) for pair in zip(written, said, strict=True))))
    right = sum(words_of(text) == words_of(truth) for text, truth in zip(written, said))
    return {"n": len(said), "right": right, "wrong": wrong, "words": words}


def phrases(name: str, plan: Plan) -> dict:
    """Phrases of unheard voices, written down: words wrong of all said, by sort."""
    corpus, data, model = load_phrases(plan.split, progress=False), talks_of(plan), model_of(name)
    tokens = speech_tokens(data.codec, corpus.clips[:plan.phrases], LEVELS, progress=False)
    prompts = [[Segment("audio", tuple(row.tolist()))] for row in tokens]
    written = [data.bpe.decode(s.ids).strip() for s in generate(model, data.vocabulary, prompts, "text", temperature=0.0)]
    groups = {"all": range(len(written))}
    for i, sort in enumerate(corpus.sorts[:len(written)]):
        groups[sort] = [*groups.get(sort, ()), i]
    return {group: errors([written[i] for i in kept], [corpus.texts[i] for i in kept]) for group, kept in sorted(groups.items())}


def heard(plan: Plan) -> dict:
    """The same phrases in the ears of the report listener: as they are, and after the trip through the model's tokens."""
    corpus, data = load_phrases(plan.split, progress=False), talks_of(plan)
    clips, said = corpus.clips[:plan.phrases], corpus.texts[:plan.phrases]
    tokens = speech_tokens(data.codec, clips, LEVELS, progress=False)
    coded = sounded(data.codec, [Segment("audio", tuple(row.tolist())) for row in tokens])
    return {"as they are": heard_row(clips, said), "after the codec": heard_row(coded, said)}


def whole(name: str, plan: Plan) -> dict:
    """Conversations about the model's own pictures: by number of turns, how many are right to the end."""
    data, out = talks_of(plan), {}
    for asked in ask_through(model_of(name), data, TEST_SEED):
        row = out.setdefault(str(len(asked)), {"n": 0, "right": 0})
        row["n"], row["right"] = row["n"] + 1, row["right"] + all(each.right for each in asked)
    return dict(sorted(out.items()))


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """The model that converses, and the one before it."""
    return [Job("turns", partial(turns, "chat", plan), ("chat",)), Job("phrases", partial(phrases, "chat", plan), ("chat",)),
            Job("whole", partial(whole, "chat", plan), ("chat",)), Job("heard", partial(heard, plan), ("listener",)),
            Job("before: turns", partial(turns, "transformer", replace(plan, talks=plan.begun)), ("before",), "turns"),
            Job("before: phrases", partial(phrases, "transformer", plan), ("before",), "phrases")]


def head(plan: Plan) -> dict:
    """The plan and the models."""
    return {"plan": asdict(plan), "made with": {name: checkpoints.identity(name)[:8]
                                                for name in ("chat", "transformer", "vqvae", "codec", "phrase_listener")}}


def outdated(result: dict, head: dict) -> None:
    """A new `chat` makes its own rows untrue; those of the model before it, and of the listener, stay."""
    if only_chat_is_new(result, head):
        result.pop("chat", None)
        result["made with"] = head["made with"]


STUDY = Study("ch11_chat", Plan(), Plan(talks=6, begun=4, phrases=6, outside=2, split="validation"), jobs, head,
              outdated=outdated, minutes=True)
main = STUDY.run
