"""A conversation with the model: text, pictures and sounds, and the model decides how it answers.

>>> import mmcourse as mm
>>> talk = mm.load().chat()                                                     # doctest: +SKIP
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
    check_asked(prompts)
    rows, openers, out = [vocabulary.pack(prompt) for prompt in prompts], list(OPEN.values()), []
    for i in range(0, len(rows), TOGETHER):
        part = rows[i:i + TOGETHER]
        hidden = model.hidden(pad(part).to(model.device))   # nobody sees the padding behind
        last = hidden[torch.arange(len(part)), torch.tensor([len(row) - 1 for row in part])]
        out += [MODALITIES[k] for k in model.head(last)[:, openers].argmax(-1).tolist()]
    return out


def reply(model: Transformer, vocabulary: Vocabulary, prompts: Sequence[Sequence[Segment]],
          wants: Sequence[str] | None = None, think: bool = True,
          **sampling) -> list[tuple[Segment, ...]]:
    """The model's replies: an answer each, and before a picture or a sound the words for it.

    Args:
        prompts: conversations, each up to the question.
        wants: of which kind each answer shall be; None: the model chooses.
        think: whether words come before a picture or a sound.
        sampling: of the answers, as for `generate`; by default the likeliest. Words are
            always the likeliest.
    """
    check_asked(prompts, wants)
    wants = choose_modality(model, vocabulary, prompts) if wants is None else list(wants)
    asked, replies = [list(prompt) for prompt in prompts], [() for _ in prompts]
    speechless = [i for i, want in enumerate(wants) if think and want != "text"]
    words = generate(model, vocabulary, [asked[i] for i in speechless], "text", temperature=0.0)
    for i, said in zip(speechless, words):
        replies[i] = (said,)
    for want in dict.fromkeys(wants):
        rows = [i for i, each in enumerate(wants) if each == want]
        given = generate(model, vocabulary, [[*asked[i], *replies[i]] for i in rows], want,
                         **{"temperature": 0.0, **sampling})
        for i, answer in zip(rows, given):
            replies[i] += (answer,)
    return replies


def check_asked(prompts: Sequence[Sequence[Segment]], wants: Sequence[str] | None = None) -> None:
    """ValueError if there are more or fewer `wants` than prompts, or none and a prompt is empty: nothing decides then of which
    kind the answer is."""
    if wants is not None and len(wants) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts and {len(wants)} wants: give one for each, or None")
    if wants is None and not all(prompts):
        raise ValueError("a prompt is empty: ask something, or say what is wanted (text, image, audio)")


def room_for_prompt(vocabulary: Vocabulary, context: int) -> int:
    """How many of the context's tokens a conversation may have before the words and the answer."""
    return context - sum(content_limit(vocabulary, want) + 2 for want in ("text", "audio"))


def first_that_fits(turns: Sequence[Sequence[Segment]], room: int) -> int:
    """The number of the oldest turn from which on all fit `room` tokens. ValueError if not even the newest does."""
    lengths = [sum(len(segment.ids) + 2 for segment in turn) for turn in turns]         # each between its two boundary tokens
    for first in range(len(turns)):
        if sum(lengths[first:]) <= room:
            return first
    raise ValueError(f"a turn has {lengths[-1]} tokens, and there is room for {room}: ask for less, or show one thing at a time")


@dataclass(frozen=True)
class Exchange:
    """A turn of a conversation.

    Args:
        given: what was asked, Text, Image and Audio. answer: what was answered.
        segments: both as tokens. thought: the words that came before a picture or a sound, "" if none did.
    """
    given: tuple
    answer: object
    segments: tuple[Segment, ...]
    thought: str = ""


class Chat:
    """A conversation. `turns`: what was said so far; `forgotten`: how many of them no longer fit the model's context."""

    def __init__(self, assistant):
        self.assistant, self.turns, self.forgotten = assistant, [], 0

    def say(self, *parts, want: str | None = None, seed: int = 0, think: bool = True, decoder: str | None = None, **sampling):
        """Say, show or play something, and get the answer.

        Args:
            parts: strings, Text, Image and Audio (speech of up to `LONGEST_HEARD` seconds).
            want: `text`, `image` or `audio`; None: the model decides.
            think: whether the model first says in words what it means to draw or speak.
            seed, decoder: as for `Assistant.generate`.
            sampling: temperature, top_k, top_p, guidance; by default the likeliest answer.

        Returns:
            Text, Image or Audio. Its `remarks` say what was left out. Errors leave the conversation as it was.
        """
        if not parts:
            raise ValueError("say, show or play something: talk.say('two cats on the left')")
        if want is not None and want not in MODALITIES:
            raise ValueError(f"want is one of {MODALITIES}, or None to let the model decide; got {want!r}")
        assistant, seed = self.assistant, self.assistant.seed(seed)
        assistant._painter(decoder)                                     # a wrong name is refused before the model runs
        given, remarks = self._read(parts)
        asked = [self._segment(part) for part in given]
        first = self._first(asked)
        if first > self.forgotten:
            remarks.append(f"The conversation is longer than what I can see at once: I have forgotten its first "
                           f"{'turn' if first == 1 else f'{first} turns'}.")
        prompt = [segment for turn in self.turns[first:] for segment in turn.segments] + asked
        (answered,) = reply(assistant.transformer, assistant.vocabulary, [prompt], [want] if want else None, think, seed=seed,
                            **sampling)
        answer = assistant.render(answered[-1], decoder=decoder, seed=seed)
        object.__setattr__(answer, "remarks", tuple(dict.fromkeys(remarks)))            # a Text is frozen
        thought = assistant.bpe.decode(answered[0].ids).strip() if len(answered) > 1 else ""
        self.turns.append(Exchange(tuple(given), answer, (*asked, answered[-1]), thought))
        self.forgotten = first
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

    def _first(self, asked: list[Segment]) -> int:
        """The oldest turn that the model still sees, with room for the words and the answer."""
        room = room_for_prompt(self.assistant.vocabulary, self.assistant.transformer.context)
        return first_that_fits([*(turn.segments for turn in self.turns), asked], room)
