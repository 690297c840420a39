"""Conversations (`mmcourse.world.dialogues`) as tokens: what a model that shall converse learns from and is asked.

    train(model, Talks(bpe, vocabulary).batch, mixture_loss, ...)       conversations in words: what is shown and heard is put
                                                                        into words first, and answers are drawn and spoken
                                                                        from their words
    Conversations("test")                                               the same with pictures and sounds, to be asked

Pictures and sounds are made and tokenized once, then read from the cache.
"""
import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.chat import after_picture, in_words, picture_of_now
from mmcourse.checks import device_of
from mmcourse.dataset import Clips, heard_clips, image_tokens, kept, pad, speech_tokens
from mmcourse.generate import content_limit
from mmcourse.vocabulary import Segment, Vocabulary
from mmcourse.world.dialogues import UNKNOWN, Part, Turn, dialogues, spoken_texts
from mmcourse.world.outside import PICTURES, SOUNDS, outside_picture, outside_sound
from mmcourse.world.phrases import LONGEST, PITCHES, SPEEDS, aloud
from mmcourse.world.rules import unit_hash
from mmcourse.world.scene import WORLD, held_out_voice
from mmcourse.world.speech import SAMPLE_RATE, VOICES, cached_clips

TALKS = {"train": 12_000, "validation": 400, "test": 400}               # conversations of each split
TAKES = {"train": 3, "validation": 4, "test": 4}                        # voices that say each text
COPIES = {"train": 1, "validation": 0, "test": 0}                       # of a clip, through another throat, room and microphone
OUTSIDE = {"train": 600, "validation": 100, "test": 100}                # pictures or sounds of each kind from outside
LEVELS = 2                              # of the codec, which the model reads and writes
PARTS = 4                               # of a batch, of rows of similar length


class Conversations:
    """The conversations of a split as tokens.

    Args:
        talks: how many; conversation i is the same however many there are. outside: how many pictures and sounds of each kind
            from outside. None: as `TALKS` and `OUTSIDE` have it.

    Attributes:
        talks: tuples of `Turn`. said, heard: clips of all that is spoken, clean, and as it is heard.
    """

    def __init__(self, split: str = "train", talks: int | None = None, outside: int | None = None, *, progress: bool = True):
        if split not in TALKS:
            raise ValueError(f"conversations have the splits {', '.join(TALKS)}, got {split!r}")
        self.split = split
        self.bpe, self.vqvae, self.codec = (checkpoints.load(name) for name in ("bpe", "vqvae", "codec"))
        self.vocabulary = Vocabulary(self.bpe.vocab_size, self.vqvae.vocab_size, self.codec.codebook_size, LEVELS)
        self.talks = dialogues(TALKS[split] if talks is None else talks, split)
        self.pictures = self._pictures(progress)
        self.said, self.heard = self._speech(progress)
        self.outside = self._outside(OUTSIDE[split] if outside is None else outside, progress)

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
            device = device_of(self.vqvae)
            ids = torch.cat([self.vqvae.encode(part.to(device)) for part in pixels.split(64)])
            return ids.flatten(1).cpu().numpy().astype(np.int16)
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
        """The tokens of a part. Of what is outside, and of voices, one of several at random; an answer is in a clean voice."""
        if part.kind == "text":
            return Segment("text", tuple(self.bpe.encode(" " + part.value)))
        if part.kind == "image":
            return Segment("image", tuple(self.pictures[part.value].tolist()))
        if part.kind == "spoken":
            return Segment("audio", tuple((self.said if answer else self.heard).pick(rng, part.value)[0].tolist()))
        pool = self.outside[part.value]
        return Segment(modality(part), tuple(pool[rng.integers(len(pool))].tolist()))

    def given(self, turn: Turn, rng: np.random.Generator) -> list[Segment]:
        """What the user of a turn says, shows and plays."""
        return [self.segment(part, rng) for part in turn.given]


class Talks:
    """Turns of conversations in words, to be learned from: as they stand in `mmcourse.chat`, each after the picture of now.

    Args:
        talks: how many conversations of the split. rows: turns in a `batch`. weight: how much the loss counts an answer's tokens.
        least: for so many tokens an answer counts, if it has fewer: beside captions an answer of one word is soon forgotten.
        others: the share of the turns that are no questions and are kept in a batch.
    """

    def __init__(self, bpe, vocabulary: Vocabulary, split: str = "train", talks: int | None = None, *, rows: int = 96,
                 weight: float = 1.0, least: int = 1, others: float = 1.0):
        self.bpe, self.vocabulary, self.rows = bpe, vocabulary, rows
        self.weight, self.least, self.others = weight, least, others
        self.talks = dialogues(TALKS[split] if talks is None else talks, split)

    def part(self, part: Part) -> list[Segment]:
        """A part as it stands in a conversation."""
        words = Segment("text", tuple(self.bpe.encode(" " + told(part))))
        return in_words(words) if modality(part) == "text" else in_words(Segment(modality(part), ()), words)

    def turns(self, talk: Sequence[Turn]) -> list[tuple[list[Segment], list[Segment]]]:
        """Of each turn what the model sees, the picture of now and what is given, and the answer."""
        found, now = [], []
        for turn in talk:
            given = [segment for part in turn.given for segment in self.part(part)]
            answer = self.part(turn.answer)
            found.append((after_picture(now, given), answer))
            now = picture_of_now(now, given, answer)
        return found

    def row(self, given: list[Segment], answer: list[Segment]) -> tuple[list[int], list[float]]:
        """A turn as ids, and how much the loss counts each: the answer, and of its boundary tokens those that are chosen. Of
        which kind the answer is, its first token says."""
        ids = self.vocabulary.pack(given)
        weights, each = [0.0] * len(ids), self.weight * max(1.0, self.least / len(answer[-1].ids))
        for number, segment in enumerate(answer):
            part = self.vocabulary.pack([segment])
            ids += part
            weights += [each * (number == 0)] + [each * (segment.modality == "text")] * (len(part) - 1)
        return ids, weights

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """ids and weights (B, T) of `rows` turns, in up to `PARTS` parts of similar length: for `mixture_loss`."""
        rows: list = []
        while len(rows) < self.rows:
            talk = self.talks[rng.integers(len(self.talks))]
            rows += [self.row(*pair) for turn, pair in zip(talk, self.turns(talk), strict=True)
                     if turn.kind == "ask" or self.others == 1 or rng.random() < self.others]
        rows = sorted(rows[:self.rows], key=lambda row: len(row[0]))
        size = -(-len(rows) // PARTS)
        return tuple(pad([row[k] for row in rows[i:i + size]], dtype) for i in range(0, len(rows), size)
                     for k, dtype in ((0, torch.long), (1, torch.float)))


def modality(part: Part) -> str:
    """Of which kind a part is to the model."""
    kinds = {"text": "text", "image": "image", "spoken": "audio"}
    return kinds.get(part.kind) or ("image" if part.value in PICTURES else "audio")


def told(part: Part) -> str:
    """A part in words: the caption of a picture, what is said; of what is not of the world, that it is unknown."""
    return WORLD.caption(part.value) if part.kind == "image" else UNKNOWN if part.kind == "outside" else part.value


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


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
