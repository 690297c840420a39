"""What a token costs the reference model: of captions, pictures and clips, alone, in random order, after a word.

Chapter 01 asks the same of 64 each, live.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.assistant import Assistant, load
from mmcourse.bits import segment_bits
from mmcourse.studies import Job, Study
from mmcourse.vocabulary import Segment
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import WORDS, Scene, caption, sample_scene, scene_bits
from mmcourse.world.speech import SpeechCorpus, load_speech

SPLITS = {"fresh": "train", "held out": "held-out"}
CONTROLS = 24                           # segments of each kind that are shuffled and rolled


class Samples:
    """`n` fresh and `n` held-out scenes as captions and pictures, and clips of `n` known and `n` new voices.

    `segments` maps a name, such as "text, fresh" or "speech, new voices", to its segments; `spoken` the two of
    speech to their words as text; `scene_bits` "fresh" and "held out" to the bits of the scenes, (n,).
    """

    def __init__(self, assistant: Assistant, speech: SpeechCorpus, n: int = 64, seed: int = 7):
        self.segments: dict[str, list[Segment]] = {}
        self.spoken: dict[str, list[Segment]] = {}
        self.scene_bits: dict[str, np.ndarray] = {}
        for name, split in SPLITS.items():
            scenes = [sample_scene(np.random.default_rng((seed, i)), split) for i in range(n)]
            self.scene_bits[name] = np.array([scene_bits(scene, split) for scene in scenes])
            self.segments[f"text, {name}"] = [assistant.segment(caption(scene)) for scene in scenes]
            self.segments[f"picture, {name}"] = picture_segments(assistant, scenes)
        for name, held_out in (("known", False), ("new", True)):
            chosen = np.random.default_rng(seed).permutation(speech.select(held_out=held_out))[:n]
            self.segments[f"speech, {name} voices"] = [sound_segment(assistant, speech.clips[i]) for i in chosen]
            self.spoken[f"speech, {name} voices"] = [assistant.segment(speech.words[i]) for i in chosen]


def picture_segments(assistant: Assistant, scenes: list[Scene]) -> list[Segment]:
    """The pictures of scenes, 64 tokens each."""
    ids = assistant.vqvae.encode(draw_batch(scenes)).flatten(1).tolist()
    return [Segment("image", tuple(row)) for row in ids]


@torch.no_grad()
def sound_segment(assistant: Assistant, clip: np.ndarray) -> Segment:
    """A clip as the transformer gets it: frame after frame, and of each frame the levels that it uses."""
    codes = assistant.codec.encode(torch.from_numpy(clip)[None])[0, :, :assistant.vocabulary.audio_levels]
    return Segment("audio", tuple(codes.flatten().tolist()))


def prices(assistant: Assistant, segments: list[Segment], given: list[Segment] | None = None) -> np.ndarray:
    """Bits of each segment with its closing token, alone or after the one `given` for it: (n,)."""
    before = [[one] for one in given] if given else [[]] * len(segments)
    return np.array([segment_bits(assistant.transformer, assistant.vocabulary, segment, told).sum()
                     for segment, told in zip(segments, before)])


def lengths(segments: list[Segment]) -> np.ndarray:
    """Tokens of each segment, its closing one included, as its price has it: (n,)."""
    return np.array([len(segment.ids) + 1 for segment in segments])


def in_random_order(assistant: Assistant, segment: Segment, rng: np.random.Generator) -> Segment:
    """The control: the same tokens, shuffled. Sound is shuffled frame by frame, so each level stays in its place."""
    step = assistant.vocabulary.audio_levels if segment.modality == "audio" else 1
    frames = np.array(segment.ids).reshape(-1, step)
    return Segment(segment.modality, tuple(rng.permutation(frames).flatten().tolist()))


def rolled_evenly(assistant: Assistant, segment: Segment, rng: np.random.Generator) -> Segment:
    """Nothing to know: as many tokens, each rolled from the whole vocabulary of its kind."""
    size = assistant.vocabulary.config[segment.modality]
    return Segment(segment.modality, tuple(rng.integers(size, size=len(segment.ids)).tolist()))


def other_words(spoken: list[Segment], rng: np.random.Generator) -> list[Segment]:
    """For each word one of the others of the list, another word than it."""
    different = sorted({word.ids for word in spoken})
    return [Segment("text", different[rng.choice([i for i, ids in enumerate(different) if ids != word.ids])])
            for word in spoken]


def share_of_nominal(bits: np.ndarray, tokens: np.ndarray, nominal: float, draws: int = 2000, seed: int = 0
                     ) -> tuple[float, float, float]:
    """Bits a token as a share of the nominal ones, with its 95 % interval: segments drawn again with replacement."""
    again = np.random.default_rng(seed).integers(len(bits), size=(draws, len(bits)))
    low, high = np.quantile(bits[again].sum(1) / tokens[again].sum(1), [0.025, 0.975]) / nominal
    return float(bits.sum() / tokens.sum() / nominal), float(low), float(high)


KIND = {"text": "text", "picture": "image", "speech": "audio"}     # how the vocabulary calls them


def price_row(assistant: Assistant, samples: Samples, name: str) -> dict:
    """Bits a token of one kind: nominal, predicted with its 95 % interval, and the lower bound where it is known."""
    segments, (kind, sort) = samples.segments[name], name.split(", ")
    nominal, n = float(np.log2(assistant.vocabulary.config[KIND[kind]])), lengths(segments)
    share, low, high = share_of_nominal(prices(assistant, segments), n, nominal)
    bound = samples.scene_bits[sort].sum() / n.sum() if sort in samples.scene_bits else None
    return {"tokens of": name, "tokens each": n.mean(), "nominal": nominal, "predicted": nominal * share,
            "low": nominal * low, "high": nominal * high, "lower bound": bound, "less than half": holds(low, high)}


def claim(assistant: Assistant, samples: Samples, counted: dict[str, float], seed: int = 0) -> list[dict]:
    """`price_row` of each kind, with what was counted and two controls: random order, and ids rolled evenly."""
    rng, rows = np.random.default_rng(seed), []
    for name, segments in samples.segments.items():
        row = price_row(assistant, samples, name)
        for control in (in_random_order, rolled_evenly):
            changed = [control(assistant, segment, rng) for segment in segments[:CONTROLS]]
            row[control.__name__.replace("_", " ")] = prices(assistant, changed).sum() / lengths(changed).sum()
        rows.append({**row, "counted": counted[KIND[name.split(", ")[0]]]})
    return rows


def holds(low: float, high: float, below: float = 0.5) -> str:
    """Whether something with this 95 % interval lies below a line."""
    return "yes" if high < below else "no" if low > below else "undecided"


def saved_by_context(row: dict) -> bool:
    """Whether context saves more of a token's nominal bits than uneven counts do."""
    return row["counted"] - row["predicted"] > row["nominal"] - row["counted"]


def verdict(rows: list[dict]) -> str:
    """What a table of `claim` says about both halves of the hypothesis, in words."""
    def those(found) -> str:
        names = [row["tokens of"] for row in rows if found(row)]
        return "; ".join(names) or "nothing"
    lines = [f"less than half of nominal is left: {those(lambda row: row['less than half'] == 'yes')}",
             f"undecided: {those(lambda row: row['less than half'] == 'undecided')}",
             f"more than half is left: {those(lambda row: row['less than half'] == 'no')}",
             f"context saves more than uneven counts do: {those(saved_by_context)}",
             f"uneven counts save more: {those(lambda row: not saved_by_context(row))}",
             f"the control, random order, costs more: {those(lambda row: row['in random order'] > row['predicted'])}"]
    return "\n".join(lines)


def word_row(assistant: Assistant, samples: Samples, name: str, seed: int = 0) -> dict:
    """What a clip costs alone, after its word, with that word's own price added, and after a wrong word."""
    segments, spoken, word = samples.segments[name], samples.spoken[name], float(np.log2(len(WORDS)))
    wrong = other_words(spoken, np.random.default_rng(seed))
    alone, after, misled = (prices(assistant, segments, given) for given in (None, spoken, wrong))
    return {"clips": name, "alone": alone.mean(), "after its word": after.mean(),
            "its word, then the clip": after.mean() + word, "after a wrong word": misled.mean(),
            "bits a token, word first": (after + word).sum() / lengths(segments).sum()}


# ---------------------------------------------------------------- the study: more of the same

@dataclass(frozen=True)
class Plan:
    """How many scenes and clips of each kind, and which."""
    n: int = 400
    seed: int = 1007


@cache
def asked(plan: Plan) -> tuple[Assistant, Samples]:
    """The shipped model and what it is asked of."""
    assistant = load()
    return assistant, Samples(assistant, load_speech(progress=False), plan.n, plan.seed)


def rounded(row: dict) -> dict:
    """A row for the file."""
    return {key: round(float(value), 3) if isinstance(value, (float, np.floating)) else value for key, value in row.items()}


def measure(plan: Plan, name: str, make) -> dict:
    """One row of `price_row` or `word_row`."""
    return rounded(make(*asked(plan), name))


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """A row for each kind of tokens, and one for each kind of voice with the word in front."""
    alone = [f"{kind}, {sort}" for kind in ("text", "picture") for sort in SPLITS]
    voices = [f"speech, {name} voices" for name in ("known", "new")]
    return [*[Job(name, partial(measure, plan, name, price_row)) for name in [*alone, *voices]],
            *[Job(f"{name}, word first", partial(measure, plan, name, word_row), section=("word first",), key=name)
              for name in voices]]


def head(plan: Plan) -> dict:
    """The plan, and the weights that were asked."""
    return {"plan": asdict(plan), "transformer": checkpoints.manifest()["transformer"]["sha256"]}


STUDY = Study("ch01_prices", Plan(), Plan(n=3), jobs, head)
main = STUDY.run
