"""Words in many voices (chapter 10): some words in a voice and another one in that voice; a new word for a sound.

`spoken` and `new_words` make the episodes from the table of `SpokenWords`. Each takes the table, a generator and a number
of rows, and gives a `Spoken`. The last pair of an episode is the query. In the shapes, R are rows (episodes), P the pairs
of each, the query among them; a sound is (16, 65) numbers (`SpokenWords.values`).

What the net reads and says: `EpisodeNet(WORD_IDS + len(tables.names), (FRAMES, NUMBERS), sound=True)` does both tasks.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.checks import check_whole, device_of, whole
from mmcourse.codec import FRAME_SAMPLES
from mmcourse.dataset import kept
from mmcourse.experiments.episodes import LABELS, check_labelled, class_of_each, deal, distinct, other_than
from mmcourse.judges.pitch import cents, pitch_track
from mmcourse.world.other_voices import OTHER_VOICES
from mmcourse.world.rules import unit_hash
from mmcourse.world.scene import NOUNS, held_out_voice
from mmcourse.world.speech import SAMPLE_RATE, VOICES, speak, to_clip

FRAMES, NUMBERS = 16, 65                # of a sound: 0.64 s; whether there is sound, and 64 that say which
WORD_IDS = LABELS                       # the net's words: 0 ... 15 are invented, WORD_IDS + i is word i of the table

# Not in the test: of one word in ten or more no pitch is found, or its octave is another from word to word.
NO_PITCH = ("announcer", "klatt", "klatt2", "pedro", "robosoft", "robosoft2", "robosoft4",
            "gustave", "ian", "marcelo", "Mario", "quincy", "robert")
VARIANTS = {                            # espeak-ng's; none (the part after "+") is in two splits
    "train": tuple(name for i, name in enumerate(VOICES) if not held_out_voice(i)),
    "validation": tuple(name for i, name in enumerate(VOICES) if held_out_voice(i)),
    "test": tuple(name for name in OTHER_VOICES if name.split("+")[1] not in NO_PITCH)}
# "bicycle" alone is longer than 16 frames in most voices
SAID = tuple(sorted(set(NOUNS) - {"bicycle"}, key=lambda noun: unit_hash("spoken", noun)))
WORDS = {"train": SAID[:44], "validation": SAID[44:53], "test": SAID[53:]}


# ---------------------------------------------------------------- the table

def voice(split: str, i: int) -> tuple[str, int, int]:
    """Voice `i` of a split, a point: espeak-ng's variant, pitch (40 to 90) and speed (160 to 199 words a minute).

    Lower, a man's voice has less than the 70 Hz that `pitch_track` can follow.
    """
    pitch, speed = (unit_hash(what, "of a voice", split, i) for what in ("pitch", "speed"))
    return VARIANTS[split][i % len(VARIANTS[split])], 40 + int(51 * pitch), 160 + int(40 * speed)


def median_pitch(samples, clear: float = 0.6) -> float:
    """The pitch of a word, (samples,) at 8 kHz: the median of its voiced frames in Hz; NaN if there are less than four.

    `clear` (0 to 1) is how well a frame must repeat itself to be voiced.
    """
    track = pitch_track(samples, clear=clear)
    voiced = track[np.isfinite(track)]
    return float(np.median(voiced)) if len(voiced) > 3 else float("nan")


def table_of(codec, split: str, voices: Sequence, names: Sequence[str], progress: bool) -> np.ndarray:
    """Every word in every voice, spoken and encoded: records (voices, words) of ids, frames and pitch, cached."""
    from tqdm.auto import tqdm
    jobs = [(name, *voice) for voice in voices for name in names]
    kind = np.dtype([("ids", np.int16, (FRAMES, codec.levels)), ("frames", np.int16), ("pitch", np.float32)])

    def make():
        out = np.zeros(len(jobs), kind)
        bar = tqdm(speak(jobs), f"voices ({split})", total=len(jobs), disable=not progress, unit="word")
        for record, (sound, rate) in zip(out, bar):
            clip = to_clip(sound, rate, FRAMES * FRAME_SAMPLES / SAMPLE_RATE).astype(np.float32) / 32767
            ids = codec.encode(torch.from_numpy(clip).to(device_of(codec)))[0].cpu().numpy()      # (frames, levels)
            record["ids"][:len(ids)], record["frames"], record["pitch"] = ids, len(ids), median_pitch(clip)
        return out
    key = {"jobs": jobs, "frames": FRAMES, "codec": checkpoints.identity("codec")}
    return kept("voices", key, make).reshape(len(voices), len(names))


class SpokenWords:
    """Every word in every voice, spoken by espeak-ng and encoded by the shipped codec: a minute at first use, then read
    from the cache (a file for each split).

    `names`: the words; in arrays a word is its number in here. `words_of`: which of them are `train`, `validation` and
    `test`: ranges. `voices`: points, (variant, pitch, speed); in arrays a voice is its number in here. `of`: which of
    them are of which split: ranges. `frames` (voices, words): how many have sound. `pitch` (voices, words): Hz, NaN
    where none is found. `values` (voices, words, 16, 65), float32: of each frame, 1 where there is sound and 0 after
    its end, and the sum of its four code vectors, divided by `scale`; 0 after the end.

    Args:
        voices, words: how many of train, validation and test. Fewer are the first ones of the same.
    """

    def __init__(self, voices: Sequence[int] = (240, 32, 64), words: Sequence[int] = (44, 9, 10), progress: bool = True):
        for split, n, m in zip(VARIANTS, voices, words, strict=True):
            check_whole(n, f"the number of voices of {split}")
            check_whole(m, f"the number of words of {split}", most=len(WORDS[split]))
        self.codec = checkpoints.load("codec")
        self.names = sum((WORDS[split][:n] for split, n in zip(WORDS, words)), ())
        self.words_of, self.of = (dict(zip(VARIANTS, ranges(sizes))) for sizes in (words, voices))
        points = {split: [voice(split, i) for i in range(len(pool))] for split, pool in self.of.items()}
        self.voices = sum(points.values(), [])
        records = np.concatenate([table_of(self.codec, split, some, self.names, progress)
                                  for split, some in points.items()])
        self.frames, self.pitch = records["frames"].astype(np.int64), records["pitch"].astype(np.float64)
        self.scale = float(sum(book.square().mean() for book in self.codec.codebooks)) ** 0.5   # of words of any voices
        self.values = np.zeros((*records.shape, FRAMES, NUMBERS), np.float32)
        sound = np.arange(FRAMES) < self.frames[..., None]              # (voices, words, 16)
        ids = torch.from_numpy(records["ids"][sound].astype(np.int64))  # (frames in all, levels)
        self.values[sound, 0] = 1
        self.values[sound, 1:] = (self.codec.quantizer.decode(ids) / self.scale).detach().cpu().numpy()

    def pool(self, split: str) -> range:
        """The voices of a split, as numbers in arrays."""
        if split not in VARIANTS:
            raise ValueError(f"split is one of {', '.join(VARIANTS)}, got {split!r}")
        return self.of[split]


def ranges(sizes: Sequence[int]) -> list[range]:
    """One after the other: 2, 3 -> 0 to 1, 2 to 4."""
    ends = np.cumsum(sizes).tolist()
    return [range(end - size, end) for size, end in zip(sizes, ends)]


# ---------------------------------------------------------------- episodes

@dataclass(frozen=True)
class Spoken:
    """Episodes of words and their sounds; the query is the last pair.

    `words` (R, P), int64: as the net reads them, invented ones 0 ... 15, others `WORD_IDS` + their number. `sounds`
    (R, P, 16, 65), float32. `said`, `voices` (R, P), int64: the number of the word that is heard, and of the voice.
    `seen` (R, P), bool: an earlier pair tells what is to be known, the voice in `spoken`, the word in `new_words`.
    """
    words: torch.Tensor
    sounds: torch.Tensor
    said: torch.Tensor
    voices: torch.Tensor
    seen: torch.Tensor


def episodes(tables: SpokenWords, words: np.ndarray, said: np.ndarray, voices: np.ndarray, told: np.ndarray) -> Spoken:
    """Arrays (R, P) as episodes; a pair is `seen` if an earlier one is `told` the same."""
    seen = np.tril(told[:, :, None] == told[:, None], -1).any(2)
    return Spoken(*map(torch.from_numpy, (words, tables.values[voices, said], said, voices, seen)))


def spoken(tables: SpokenWords, rng: np.random.Generator, rows: int, k: int = 4, split: str = "train",
           wrong: bool = False) -> Spoken:
    """`k` words in a voice, and another word to be said in that voice: episodes of k + 1 pairs.

    All words are those of training, also where the voices are held out: a net that is to say a word must know it.

    Args:
        k: examples; 0: nothing tells the voice.
        split: whose voices.
        wrong: the examples are in another voice of the split, and tell nothing of the query's.
    """
    check_whole(rows, "rows")
    pool, known = tables.pool(split), len(tables.words_of["train"])
    if whole(k) is None or not 0 <= k < known:
        raise ValueError(f"k examples and a query have different words, and there are {known}: k is 0 to {known - 1}, "
                         f"got {k!r}")
    if wrong and len(pool) < 2:
        raise ValueError(f"{split} has one voice, so there is no wrong one: take SpokenWords with more")
    said = distinct(rng, rows, k + 1, known)                            # words of training are the first
    voices = np.repeat(rng.integers(len(pool), size=(rows, 1)), k + 1, 1)
    if wrong:
        voices[:, :-1] = other_than(rng, voices[:, -1:], len(pool))
    voices = pool.start + voices
    return episodes(tables, WORD_IDS + said, said, voices, voices)


def new_words(tables: SpokenWords, rng: np.random.Generator, rows: int, pairs: int = 8, k: int | None = None,
              split: str = "train", support: bool = True, shuffled: bool = False, labels: int = LABELS) -> Spoken:
    """Two invented words are bound to sounds anew in each episode, in one voice. "Say dax": its sound is asked for.

    Args:
        pairs: examples, drawn at random. k: instead of it, exactly `k` of each word (for evaluation).
        split: whose voices, and whose words are the sounds. What is held out, no training says.
        support: False: the query is of another word and another sound, which no example has.
        shuffled: the examples say words of other episodes (in this one's voice), and tell nothing of the query's.
        labels: how many invented words there are.
    """
    classes = 2 if support else 3
    check_labelled(rows, 2, pairs, k, labels)
    if not classes <= labels <= LABELS:
        raise ValueError(f"{classes} to {LABELS} words can be invented, got labels={labels}")
    pool, sounds = tables.pool(split), tables.words_of[split]
    if classes > len(sounds):
        raise ValueError(f"{split} has {len(sounds)} words, too few for {classes} sounds: take SpokenWords with more")
    order = class_of_each(rng, rows, 2, pairs, k)
    if not support:
        order[:, -1] = 2
    said = np.take_along_axis(sounds.start + distinct(rng, rows, classes, len(sounds)), order, 1)
    words = np.take_along_axis(distinct(rng, rows, classes, labels), order, 1)
    voices = np.repeat(rng.integers(pool.start, pool.stop, size=(rows, 1)), order.shape[1], 1)
    if shuffled:
        said[:, :-1] = deal(rng, said[:, :-1])
    return episodes(tables, words, said, voices, words)


# ---------------------------------------------------------------- what the net says

def sound_loss(answers: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The mean squared error of (..., 16, 65) in frames with sound, plus that of the first number in all frames."""
    error = (answers - truth).square()
    return error[..., 1:][truth[..., 0] > 0.5].mean() + error[..., 0].mean()


def length(values: torch.Tensor) -> torch.Tensor:
    """How many frames of (..., 16, 65) are before the end, where the first number falls below 0.5: (...), 1 at least."""
    return (values[..., 0] >= 0.5).long().cumprod(-1).sum(-1).clamp(min=1)


def to_ids(tables: SpokenWords, values: torch.Tensor) -> torch.Tensor:
    """The codec's ids of a sound (16, 65), each level's nearest code to what is left: int64 (frames, levels)."""
    if values.shape != (FRAMES, NUMBERS):
        raise ValueError(f"a sound is ({FRAMES}, {NUMBERS}) numbers, got {tuple(values.shape)}: give one at a time")
    vectors = values[:length(values), 1:].detach().to(device_of(tables.codec)) * tables.scale
    return tables.codec.quantizer(vectors)[1]


def to_sound(tables: SpokenWords, values: torch.Tensor) -> np.ndarray:
    """What a sound (16, 65) sounds like: float32 (samples,) at 8 kHz."""
    return tables.codec.decode(to_ids(tables, values)[None])[0].cpu().numpy()


def pitch_error(samples, true_pitch: float) -> float:
    """How far the median pitch of decoded (samples,) is from `true_pitch` (Hz), up or down, in cents.

    NaN if the truth is: there is nothing to judge. Infinite if no pitch is found in the samples: as wrong as can be.
    What the codec rebuilds is rougher than a clip, most of all a low voice: less need repeat itself to count as voiced.
    """
    pitch = median_pitch(samples, clear=0.4)
    return float("inf") if np.isnan(pitch) and not np.isnan(true_pitch) else float(abs(cents(pitch, true_pitch)))


def distance(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The mean squared distance of sounds (..., 16, 65) where both are heard, or one of them: (...)."""
    heard = torch.maximum(*((torch.arange(FRAMES, device=x.device) < length(x)[..., None]).float() for x in (values, others)))
    return ((values - others).square().mean(-1) * heard).sum(-1) / heard.sum(-1)


def nearest_voice(tables: SpokenWords, values: torch.Tensor, word: torch.Tensor, among: Sequence[int]) -> torch.Tensor:
    """Which of the voices `among` says the word (R,) most like the sounds (R, 16, 65): int64 (R,)."""
    voices = torch.tensor(among)
    return voices[distance(values[:, None], torch.from_numpy(tables.values)[voices, word[:, None]]).argmin(1)]


def nearest_word(tables: SpokenWords, values: torch.Tensor, voice: torch.Tensor, among: Sequence[int]) -> torch.Tensor:
    """Which of the words `among`, said in the voice (R,), is most like the sounds (R, 16, 65): int64 (R,)."""
    words = torch.tensor(among)
    return words[distance(values[:, None], torch.from_numpy(tables.values)[voice[:, None], words]).argmin(1)]
