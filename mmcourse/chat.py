"""A conversation with the model: text, pictures and sounds, and the model decides how it answers.

>>> import mmcourse as mm
>>> talk = mm.load("chat").chat()                                               # doctest: +SKIP
>>> talk.say("two cats on the left, blue ground")                               # doctest: +SKIP
>>> talk.say("how many cats are there?")                                        # doctest: +SKIP
"""
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mmcourse.dataset import pad
from mmcourse.generate import content_limit, generate
from mmcourse.media import Audio, Image, Text
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import MODALITIES, OPEN, Segment, Vocabulary
from mmcourse.world.prompts import read_request

LONGEST_HEARD = 3.0                     # seconds of speech that the model listens to at once
TOGETHER = 16                           # prompts whose kind of answer is chosen together


@torch.no_grad()
def choose_modality(model: Transformer, vocabulary: Vocabulary,
                    prompts: Sequence[Sequence[Segment]]) -> list[str]:
    """Of which kind each answer will be: the likeliest of the tokens that open one."""
    rows, out = [vocabulary.pack(prompt) for prompt in prompts], []
    openers = list(OPEN.values())
    for i in range(0, len(rows), TOGETHER):
        part = rows[i:i + TOGETHER]
        hidden = model.hidden(pad(part).to(model.device))  # nobody sees padding behind
        ends = torch.tensor([len(row) - 1 for row in part])
        last = hidden[torch.arange(len(part)), ends]  # (B, T, C) -> (B, C)
        out += [MODALITIES[k] for k in model.head(last)[:, openers].argmax(-1).tolist()]
    return out


def in_words(segment: Segment, words: Segment | None = None) -> list[Segment]:
    """What stands for a segment in a conversation: a text as it is, a picture or a sound
    as an empty one and the words for it."""
    return [segment] if words is None else [Segment(segment.modality, ()), words]


def perceive(model: Transformer, vocabulary: Vocabulary,
             given: Sequence[Segment]) -> list[list[Segment]]:
    """Each segment as it stands in a conversation: what is seen is described, what is
    heard is written down, by the model itself."""
    foreign = [i for i, segment in enumerate(given) if segment.modality != "text"]
    said = generate(model, vocabulary, [[given[i]] for i in foreign], "text",
                    temperature=0.0)
    words = dict(zip(foreign, said))
    return [in_words(segment, words.get(i)) for i, segment in enumerate(given)]


def reply(model: Transformer, vocabulary: Vocabulary, talks: Sequence[Sequence[Segment]],
          wants: Sequence[str] | None = None) -> list[list[Segment]]:
    """The model's answer to each conversation, as it stands in it (`in_words`).

    Args:
        talks: conversations up to the question, as they stand.
        wants: of which kind each answer shall be; None: the model chooses.
    """
    wants = choose_modality(model, vocabulary, talks) if wants is None else wants
    opened = [[*talk] if want == "text" else [*talk, Segment(want, ())]
              for talk, want in zip(talks, wants, strict=True)]
    said = generate(model, vocabulary, opened, "text", temperature=0.0)
    return [[words] if want == "text" else [Segment(want, ()), words]
            for want, words in zip(wants, said)]


def draw_or_speak(model: Transformer, vocabulary: Vocabulary,
                  replies: Sequence[Sequence[Segment]], **sampling) -> list[Segment]:
    """Each answer itself: drawn or spoken from its words alone. `sampling`: as for
    `generate`; by default the likeliest."""
    out = [answer[-1] for answer in replies]
    for want in ("image", "audio"):
        rows = [i for i, answer in enumerate(replies) if answer[0].modality == want]
        made = generate(model, vocabulary, [[out[i]] for i in rows], want,
                        **{"temperature": 0.0, **sampling})
        for i, segment in zip(rows, made):
            out[i] = segment
    return out


def picture_of_now(now: list[Segment], given: Sequence[Segment],
                   answer: Sequence[Segment]) -> list[Segment]:
    """The picture that is talked about after a turn, as it stands in a conversation: what
    was drawn, or else shown, last; [] if there is none."""
    for part in (answer, given):
        for i in reversed(range(len(part))):
            if part[i].modality == "image":
                return list(part[i:i + 2])
    return now


def after_picture(now: list[Segment], given: Sequence[Segment]) -> list[Segment]:
    """What the model sees of a conversation: the picture of now, unless another one is
    shown, and what is given."""
    shown = any(segment.modality == "image" for segment in given)
    return [*([] if shown else now), *given]


def check_room(vocabulary: Vocabulary, context: int, talk: Sequence[Segment]) -> None:
    """ValueError for more words than the context has room for, before the answer's."""
    tokens = sum(len(segment.ids) + 2 for segment in talk)              # each between its two boundary tokens
    room = context - content_limit(vocabulary, "text") - 4
    if tokens > room:
        raise ValueError(f"a turn has {tokens} tokens, and there is room for {room}: say less at once")


@dataclass(frozen=True)
class Exchange:
    """A turn of a conversation.

    Args:
        given: what was asked, Text, Image and Audio. answer: what was answered.
        understood: the words for each picture and sound that was given. thought: those that the answer was drawn or spoken
            from, "" for a text.
    """
    given: tuple
    answer: object
    understood: tuple[str, ...] = ()
    thought: str = ""


class Chat:
    """A conversation: `turns` are what was said so far. The model keeps in mind the picture that was drawn or shown last, `now`,
    in its own words; whatever is said in its world is about that."""

    def __init__(self, assistant):
        self.assistant, self.turns, self.now = assistant, [], []

    def say(self, *parts, want: str | None = None, seed: int = 0, decoder: str | None = None, **sampling):
        """Say, show or play something, and get the answer.

        Args:
            parts: strings, Text, Image and Audio (speech of up to `LONGEST_HEARD` seconds).
            want: `text`, `image` or `audio`; None: the model decides.
            seed, decoder, sampling: of a drawn or spoken answer, as for `Assistant.generate`; by default the likeliest.

        Returns:
            Text, Image or Audio. Its `remarks` say what was read otherwise. Errors leave the conversation as it was.
        """
        if not parts:
            raise ValueError("say, show or play something: talk.say('two cats on the left')")
        if want is not None and want not in MODALITIES:
            raise ValueError(f"want is one of {MODALITIES}, or None to let the model decide; got {want!r}")
        a, seed = self.assistant, self.assistant.seed(seed)
        model, vocabulary = a.transformer, a.vocabulary
        a._painter(decoder)                                             # a wrong name is refused before the model runs
        given, remarks = self._read(parts)
        seen = perceive(model, vocabulary, [self._segment(part) for part in given])
        asked = [segment for part in seen for segment in part]
        talk = after_picture(self.now, asked)
        check_room(vocabulary, model.context, talk)
        (said,) = reply(model, vocabulary, [talk], [want] if want else None)
        (segment,) = draw_or_speak(model, vocabulary, [said], seed=seed, drafter=a.drafter, **sampling)
        answer = a.render(segment, decoder=decoder, seed=seed)
        object.__setattr__(answer, "remarks", tuple(dict.fromkeys(remarks)))        # a Text is frozen
        words = [a.bpe.decode(part[-1].ids).strip() for part in (*seen, said) if len(part) > 1]
        thought = words.pop() if len(said) > 1 else ""
        self.turns.append(Exchange(tuple(given), answer, tuple(words), thought))
        self.now = picture_of_now(self.now, asked, said)
        return answer

    def _read(self, parts) -> tuple[list, list[str]]:
        """The parts with their texts as the model writes them, and a sentence for each thing that was changed."""
        given, remarks = [], []
        for part in parts:
            if isinstance(part, (str, Text)):
                text, said = read_request(str(part), self.assistant.world)
                part, remarks = Text(text), [*remarks, *said]
            given.append(part)
        return given, remarks

    def _segment(self, part) -> Segment:
        if isinstance(part, Text):
            return Segment("text", tuple(self.assistant.bpe.encode(" " + part.text)))
        if isinstance(part, Audio):
            return self.assistant.sound_segment(part.speech(self.assistant.codec.sample_rate, LONGEST_HEARD))
        if isinstance(part, Image):
            return self.assistant.segment(part)
        raise TypeError(f"a conversation is made of strings, mm.Text, mm.Image and mm.Audio, got {type(part).__name__}")
