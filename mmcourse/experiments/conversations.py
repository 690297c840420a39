"""Conversations (`mmcourse.world.dialogues`) as tokens: what a model that shall converse learns from and is asked.

    post_train(model, vocabulary, [converse("train")], "sft", ...)      each turn with all before it; what kind of answer
                                                                        is wanted (text, picture, sound) is given
    train(model, conversations("train").batch, mixture_loss, ...)       whole conversations; the model also learns which
                                                                        kind of answer it is to give

Pictures and sounds are made and tokenized once, then read from the cache.
"""
import hashlib
from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.assistant import painted
from mmcourse.chat import first_that_fits, room_for_prompt
from mmcourse.dataset import (
    GIVEN_WEIGHT,
    Clips,
    confuse_codes,
    heard_clips,
    image_tokens,
    kept,
    near_codes,
    pad,
    speech_tokens,
    stretch,
)
from mmcourse.generate import content_limit
from mmcourse.judges import PictureReader
from mmcourse.posttraining import Question, Task
from mmcourse.vocabulary import Segment, Vocabulary
from mmcourse.world.dialogues import Part, Turn, dialogues, spoken_texts
from mmcourse.world.outside import PICTURES, SOUNDS, outside_picture, outside_sound
from mmcourse.world.phrases import LONGEST, PITCHES, SPEEDS, aloud
from mmcourse.world.rules import unit_hash
from mmcourse.world.scene import WORLD, held_out_voice
from mmcourse.world.speech import SAMPLE_RATE, VOICES, cached_clips

TALKS = {"train": 12_000, "validation": 400, "test": 400}               # conversations of each split
TAKES = {"train": 3, "validation": 1, "test": 1}                        # voices that say each text
COPIES = {"train": 1, "validation": 0, "test": 0}                       # of a clip, through another throat, room and microphone
OUTSIDE = {"train": 600, "validation": 100, "test": 100}                # pictures or sounds of each kind from outside
CONTEXT = 512                           # tokens: of the prompt and the answer together
LEVELS = 2                              # of the codec, which the model reads and writes
TEXT_WEIGHT = 4.0                       # of a token of an answer in text; they are few
THINKS = 0.5                            # how often words come before a picture or a voice that answers
PARTS = 4                               # of a batch, of rows of similar length


class Conversations:
    """The conversations of a split as tokens.

    Args:
        talks: how many; conversation i is the same however many there are. outside: how many pictures and sounds of each kind
            from outside. None: as `TALKS` and `OUTSIDE` have it.
        rows: conversations in a `batch`.
        context: tokens that a prompt and its answer have room in; the oldest turns are left out, whole, if there are too many.

    Attributes:
        talks: tuples of `Turn`. turns: (conversation, number of the turn), of all turns that can be asked.
    """

    def __init__(self, split: str = "train", talks: int | None = None, outside: int | None = None, *, rows: int = 32,
                 context: int = CONTEXT, progress: bool = True):
        if split not in TALKS:
            raise ValueError(f"conversations have the splits {', '.join(TALKS)}, got {split!r}")
        self.split, self.rows, self.context = split, rows, context
        self.bpe, self.vqvae, self.codec = (checkpoints.load(name) for name in ("bpe", "vqvae", "codec"))
        self.vocabulary = Vocabulary(self.bpe.vocab_size, self.vqvae.vocab_size, self.codec.codebook_size, LEVELS)
        self.talks = dialogues(TALKS[split] if talks is None else talks, split)
        self.turns = [(i, j) for i, talk in enumerate(self.talks) for j in range(len(talk))]
        self.pictures = self._pictures(progress)
        self.said, self.heard = self._speech(progress)
        self.outside = self._outside(OUTSIDE[split] if outside is None else outside, progress)
        self.near = near_codes(self.codec.codebooks[:LEVELS])

    # ---- what is tokenized once

    def _pictures(self, progress: bool) -> dict:
        """Scene -> its 64 tokens, of all scenes that are shown or drawn."""
        parts = [part for talk in self.talks for turn in talk for part in (*turn.given, turn.answer)]
        scenes = list(dict.fromkeys(part.value for part in parts if part.kind == "image"))
        if not scenes:
            return {}
        tokens = image_tokens(self.vqvae, scenes, {"dialogues": _digest(repr(scenes).encode())}, progress)
        return dict(zip(scenes, tokens, strict=True))

    def _speech(self, progress: bool) -> tuple[Clips, Clips]:
        """All that is spoken: clean clips, for answers, and what is heard of the user. ValueError for what takes too long."""
        texts = spoken_texts(self.talks)
        jobs, words = speech_jobs(sorted({*texts["given"], *texts["answer"]}), self.split)
        if not jobs:
            return Clips([], []), Clips([], [])
        clips = cached_clips(f"dialogues-{self.split}", jobs, VOICES, "", progress, longest=LONGEST)
        heard = heard_clips(self.codec, clips, words, LEVELS, COPIES[self.split], f"dialogues {_digest(repr(jobs).encode())}",
                            progress, vocal_tract=True)
        said = Clips(heard.tokens[:len(clips)], words)                  # the first copy is the clip itself
        limit, answers = content_limit(self.vocabulary, "audio"), set(texts["answer"])
        too_long = {word for word, clip in zip(words, clips) if len(clip) >= int(LONGEST * SAMPLE_RATE)}
        too_long |= {word for word, ids in zip(words, said.tokens) if word in answers and len(ids) > limit}
        if too_long:
            raise ValueError(f"a voice takes too long for {', '.join(map(repr, sorted(too_long)[:5]))}: lower LONGEST_REQUEST "
                             "or LONGEST_ANSWER of mmcourse.world.dialogues")
        return said, heard

    def _outside(self, n: int, progress: bool) -> dict[str, list[np.ndarray]]:
        """Name of what is outside -> the tokens of `n` of its kind."""
        dice, found = np.random.default_rng((list(TALKS).index(self.split), 19)), {}
        for name in PICTURES:
            pixels = torch.stack([outside_picture(dice, name, self.split) for _ in range(n)])           # (n, 3, 64, 64)
            found[name] = self._seen(name, pixels)
        for name in SOUNDS:
            found[name] = self._overheard(name, [outside_sound(dice, name, self.split) for _ in range(n)], progress)
        return found

    def _seen(self, name: str, pixels: torch.Tensor) -> list[np.ndarray]:
        """(n, 3, 64, 64) -> n rows of 64 tokens, kept under the name of the pixels."""
        def make():
            return torch.cat([self.vqvae.encode(part) for part in pixels.split(64)]).flatten(1).numpy().astype(np.int16)
        key = {"made of": _digest(pixels.numpy().tobytes()), "vqvae": checkpoints.identity("vqvae")}
        return list(kept(f"outside-{name.replace(' ', '-')}", key, make))

    def _overheard(self, name: str, sounds: list[np.ndarray], progress: bool) -> list[np.ndarray]:
        """n sounds -> n rows of tokens, kept under the name of the samples."""
        def make():                                                     # the lengths of the rows, then the rows
            rows = speech_tokens(self.codec, sounds, LEVELS, progress)
            return np.concatenate([np.array([len(row) for row in rows], np.int16), *rows])
        key = {"made of": _digest(np.concatenate(sounds).tobytes()), "codec": checkpoints.identity("codec"), "levels": LEVELS}
        n, flat = len(sounds), kept(f"outside-{name}", key, make)
        return np.split(flat[n:], np.cumsum(flat[:n - 1].astype(int)))

    # ---- segments

    def segment(self, part: Part, rng: np.random.Generator, answer: bool = False) -> Segment:
        """The tokens of a part. Of what is outside, and of voices, one of several at random; what the user says in training comes
        through any microphone, at any tempo."""
        if part.kind == "text":
            return Segment("text", tuple(self.bpe.encode(" " + part.value)))
        if part.kind == "image":
            return Segment("image", tuple(self.pictures[part.value].tolist()))
        if part.kind == "outside" and part.value in PICTURES:
            pool = self.outside[part.value]
            return Segment("image", tuple(pool[rng.integers(len(pool))].tolist()))
        if answer:
            return Segment("audio", tuple(self.said.pick(rng, part.value)[0].tolist()))
        if part.kind == "spoken":
            tokens = self.heard.pick(rng, part.value)[0]
        else:
            pool = self.outside[part.value]
            tokens = pool[rng.integers(len(pool))]
        if self.split == "train":
            tokens = confuse_codes(stretch(tokens, LEVELS, rng), self.near, rng)
        return Segment("audio", tuple(tokens.tolist()))

    def turn(self, turn: Turn, rng: np.random.Generator, words: bool = False) -> list[Segment]:
        """The segments of a turn: what is given, then the answer; with `words`, between them what will be drawn or said."""
        said = [Part("text", in_words(turn.answer))] if words and turn.answer.kind != "text" else []
        return [*(self.segment(part, rng) for part in (*turn.given, *said)), self.segment(turn.answer, rng, answer=True)]

    # ---- questions, one turn each

    def question(self, talk: int, number: int, rng: np.random.Generator) -> Question | None:
        """A turn of a conversation, with the turns before it for which there is room; its `truth` is the `Turn`.

        None if the picture that it is about had to be left out.
        """
        turns = self.talks[talk][:number + 1]
        *before, (*given, answer) = [self.turn(turn, rng) for turn in turns]
        first = first_that_fits([*before, given], room_for_prompt(self.vocabulary, self.context))
        if turns[-1].about is not None and turns[-1].about < first:
            return None
        prompt = [segment for turn in [*before[first:], given] for segment in turn]
        return Question(tuple(prompt), answer.modality, turns[-1], answer)

    def ask(self, rng: np.random.Generator, n: int) -> list[Question]:
        """`n` random turns."""
        found = []
        while len(found) < n:
            asked = self.question(*self.turns[rng.integers(len(self.turns))], rng)
            found += [asked] if asked is not None else []
        return found

    # ---- rewards

    @cached_property
    def reader(self) -> PictureReader:
        """Who reads pictures."""
        return PictureReader(WORLD)

    def reward(self, questions: Sequence[Question], answers: Sequence[Segment]) -> list[float]:
        """1 for the right text, to the letter, and for a picture in which the reader finds the whole scene; else 0. Sounds get 0:
        this reward does not listen."""
        marks = [0.0] * len(answers)
        drawn = [i for i, (question, answer) in enumerate(zip(questions, answers, strict=True))
                 if answer.modality == question.truth.answer.kind == "image"]
        scenes = self.reader.read(painted(self.vqvae, [answers[i] for i in drawn])) if drawn else []
        for i, scene in zip(drawn, scenes):
            marks[i] = float(scene == questions[i].truth.answer.value)
        for i, (question, answer) in enumerate(zip(questions, answers)):
            if answer.modality == question.truth.answer.kind == "text":
                marks[i] = float(self.bpe.decode(answer.ids).strip() == question.truth.answer.value)
        return marks

    # ---- whole conversations

    def row(self, talk: int, rng: np.random.Generator) -> tuple[list[int], list[float]]:
        """A conversation as ids, and how much the loss counts each: answers in full, and a part of what is given.

        The token that opens an answer counts the same whatever it opens: it says of which kind the answer is. At times
        (`THINKS`) the answer is said in words before it is drawn or spoken; that this happens is decided by who asks, and
        is not learned. Of a conversation that is too long the newest turns, and an answer about a picture that was left out
        counts nothing.
        """
        turns = self.talks[talk]
        packed = [self.turn(turn, rng, words=bool(rng.random() < THINKS)) for turn in turns]
        first = first_that_fits(packed, self.context)
        ids, weights = [], []
        for turn, segments in zip(turns[first:], packed[first:]):
            lost = turn.about is not None and turn.about < first
            for number, segment in enumerate(segments):
                part = self.vocabulary.pack([segment])
                given, answers = number < len(turn.given), number == len(segments) - 1
                weight = (GIVEN_WEIGHT[segment.modality] if given else
                          0.0 if lost else TEXT_WEIGHT if segment.modality == "text" else 1.0)
                opens = weight if given else float(answers and not lost)
                ids += part
                weights += [opens] + [weight] * (len(part) - 1)
        return ids, weights

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """ids and weights (B, T) of `rows` conversations, in up to `PARTS` parts of similar length: for `mixture_loss`."""
        rows = sorted((self.row(int(rng.integers(len(self.talks))), rng) for _ in range(self.rows)), key=lambda row: len(row[0]))
        size = -(-len(rows) // PARTS)
        return tuple(pad([row[k] for row in rows[i:i + size]], dtype) for i in range(0, len(rows), size)
                     for k, dtype in ((0, torch.long), (1, torch.float)))


def speech_jobs(texts: Sequence[str], split: str) -> tuple[list[tuple[str, int, int, int]], list[str]]:
    """What is to be spoken, (text for the voice, voice, pitch, speed) each, `TAKES` of each text; and the texts.

    How a text is said depends on it alone. `train` is said by training voices, the other splits by those that nothing trains on.
    """
    voices = [voice for voice in range(len(VOICES)) if held_out_voice(voice) == (split != "train")]
    jobs, words = [], []
    for text in texts:
        for take in range(TAKES[split]):
            pitch, speed = (int(low + more * unit_hash(what, text, take)) for what, (low, more) in
                            (("pitch", PITCHES), ("speed", SPEEDS)))
            first = int(unit_hash("voice", text, split) * len(voices))
            jobs.append((aloud(text), voices[(first + take * 7) % len(voices)], pitch, speed))          # others for each take
            words.append(text)
    return jobs, words


def in_words(part: Part) -> str:
    """What a picture of the world shows, or what is said."""
    return WORLD.caption(part.value) if part.kind == "image" else part.value


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


@cache
def conversations(split: str = "train") -> Conversations:
    """The conversations of a split, tokenized once a process."""
    return Conversations(split)


def converse(split: str = "train", data: Conversations | None = None) -> Task:
    """To go on with a conversation of a split, or of `data`, as a task."""
    data = conversations(split) if data is None else data
    return Task("converse", data.ask, data.reward)
