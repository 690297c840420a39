"""Before and after: is one try of the model that converses as good as the best of eight of the one before it? 20 CPU minutes.

Every direction of the matrix, on scenes of the test split (nothing was trained, chosen or practised on them), for four ways to
answer: the pre-trained model with care (`rerank.PRESETS`: eight drafts, several hearings), the same model in one greedy try,
and the model after SFT and practice in one greedy try, and with the same care. The CPU seconds of an answer are measured in the
same run. Written down before it ran:

- R1: one try after is, in every direction, at least as good as one try before.
- R2: one try after draws as well as the best of eight before (within three points), for at most a third of the CPU seconds.
- R3: no direction falls by more than three points against the best of eight.

Rows: of `n` answers the share that is `right`, with the hits one by one (`hits`), and `cpu` seconds an answer.
"""
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from mmcourse import checkpoints
from mmcourse.assistant import ONE_TRY, Assistant, load
from mmcourse.evaluate import READ, Evaluation, edit_done, parsed
from mmcourse.judges.metrics import wilson
from mmcourse.media import Text
from mmcourse.studies import Job, Study
from mmcourse.studies._ch11 import only_chat_is_new
from mmcourse.vocabulary import Segment
from mmcourse.world.edits import sample_edit
from mmcourse.world.human_digits import VALIDATION_SPEAKER, load_human_digits
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import NOUNS, WORDS, caption

TEST_SEED = 1019
WAYS = {"before, best of eight": ("reference", True), "before, one try": ("reference", False), "after, one try": ("chat", False),
        "after, best of eight": ("chat", True)}


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    asked: int = 240
    split: str = "test"


class Matrix:
    """One way to answer, in all directions; each method gives the hits of each measure."""

    def __init__(self, assistant: Assistant, careful: bool, plan: Plan):
        self.a, self.careful, self.plan, self.how = assistant, careful, plan, {} if careful else ONE_TRY
        self.e = Evaluation(assistant, plan.asked, TEST_SEED, progress=False, split=plan.split)
        self.cpu, self.answers = 0.0, 0

    def ask(self, prompts: list, want: str, label: str, **how) -> list[Segment]:
        """The answers, in batches; the seconds that they took are added up."""
        start = time.process_time()
        answers = self.e.ask(prompts, want, label, **how)
        self.cpu, self.answers = self.cpu + time.process_time() - start, self.answers + len(answers)
        return answers

    def views(self, clips: list) -> dict:
        """Each clip at several tempos for a careful listener."""
        return {"views": [self.a.augmented_views(clip) for clip in clips]} if self.careful else {}

    def draw(self) -> dict[str, list[bool]]:
        """text->image, by templates."""
        prompts = [[self.a.segment(caption(s))] for s in self.e.scenes]
        seen = self.e.reader.read(self.e.paint(self.ask(prompts, "image", "draw", **self.how)))
        return scene_hits(seen, self.e.scenes)

    def describe(self) -> dict[str, list[bool]]:
        """image->text."""
        said = self.e.written(self.ask(self.e.image_prompts, "text", "describe", **self.how))
        return {"exact": scene_hits([parsed(text) for text in said], self.e.scenes)["exact"]}

    def say(self) -> dict[str, list[bool]]:
        """text->audio, by both listeners."""
        words = [WORDS[i % len(WORDS)] for i in range(self.plan.asked)]
        return self.heard(self.ask([[self.a.segment(word)] for word in words], "audio", "say", **self.how), words)

    def name(self) -> dict[str, list[bool]]:
        """image->audio, said to itself first."""
        answers = self.ask(self.e.image_prompts, "audio", "name", **self.how)
        return self.heard(answers, [s.groups[0].noun if s.groups else "" for s in self.e.scenes])

    def heard(self, answers: list[Segment], words: list[str]) -> dict[str, list[bool]]:
        """Spoken answers in the ears of two listeners."""
        sounds = self.e.sound(answers)
        return {name: [heard == word for heard, word in zip(self.e.listeners[key](sounds), words) if word]
                for name, key in (("judge", ""), ("second listener", "_second"))}

    def write(self) -> dict[str, list[bool]]:
        """audio->text: words of unheard voices."""
        clips, words = (part[:self.plan.asked] for part in self.e.speech)
        return {"words": self.transcribed(clips, words)}

    def write_digits(self) -> dict[str, list[bool]]:
        """audio->text: digits of a person nothing trained on, where the recordings are there."""
        digits = load_human_digits()
        if digits is None:
            return {}
        theirs = np.flatnonzero(np.array(digits.speakers) == VALIDATION_SPEAKER)
        order = np.random.default_rng((TEST_SEED, 79)).permutation(theirs)[:3 * self.plan.asked]
        return {"digits": self.transcribed([digits.clips[i] for i in order], [digits.words[i] for i in order])}

    def transcribed(self, clips: list, words: list[str]) -> list[bool]:
        """Clips, written down."""
        prompts = [[self.a.sound_segment(clip)] for clip in clips]
        how = self.views(clips) if self.careful else self.how
        return [text == word for text, word in zip(self.e.written(self.ask(prompts, "text", "write", **how)), words)]

    def draw_heard(self) -> dict[str, list[bool]]:
        """audio->image, said to itself first."""
        clips, words = self.e.speech
        kept = [i for i, word in enumerate(words) if word in NOUNS][:self.plan.asked]
        prompts = [[self.a.sound_segment(clips[i])] for i in kept]
        answers = self.ask(prompts, "image", "draw heard", **self.how, **self.views([clips[i] for i in kept]))
        seen = self.e.reader.read(self.e.paint(answers))
        return {"object": [bool(s and s.groups) and s.groups[0].noun == words[i] for s, i in zip(seen, kept)]}

    def edit(self) -> dict[str, list[bool]]:
        """image+text->image, said to itself first: what was asked is changed, and the rest is as it was."""
        rng = np.random.default_rng((TEST_SEED, 78))
        edits = [sample_edit(rng, self.plan.split) for _ in range(self.plan.asked)]
        before = self.a.vqvae.encode(draw_batch([edit.before for edit in edits]))
        prompts = [[Segment("image", tuple(ids.flatten().tolist())), self.a.segment(Text(edit.instruction))]
                   for ids, edit in zip(before, edits)]
        answers = self.ask(prompts, "image", "edit", **self.how, **({} if self.careful else {"views": []}))
        done = [edit_done(seen, edit) for seen, edit in zip(self.e.reader.read(self.e.paint(answers)), edits)]
        return {key: [each[key] for each in done] for key in ("change", "both")}


def scene_hits(seen: list, scenes: list) -> dict[str, list[bool]]:
    """Whether the objects, the whole sign (of scenes that have one) and all of each scene were seen."""
    kept = {"object": scenes, "word": [s for s in scenes if s.sign], "exact": scenes}
    found = {id(scene): what for scene, what in zip(scenes, seen)}
    return {key: [found[id(s)] is not None and READ[key](found[id(s)]) == READ[key](s) for s in asked]
            for key, asked in kept.items()}


DIRECTIONS: dict[str, Callable] = {"text->image": Matrix.draw, "image->text": Matrix.describe, "text->speech": Matrix.say,
                                   "image->speech": Matrix.name, "speech->text": Matrix.write,
                                   "people's digits": Matrix.write_digits, "speech->image": Matrix.draw_heard,
                                   "image+text->image": Matrix.edit}


def measure(direction: str, way: str, plan: Plan) -> dict:
    """One direction, answered in one way."""
    name, careful = WAYS[way]
    matrix, out = Matrix(load(name), careful, plan), {}
    found = DIRECTIONS[direction](matrix)
    for key, hits in found.items():
        low, high = wilson(sum(hits), len(hits)) if hits else (None, None)
        out[key] = {"n": len(hits), "right": int(sum(hits)), "low": low and round(low, 4), "high": high and round(high, 4),
                    "hits": "".join(str(int(hit)) for hit in hits)}
    return {**out, "cpu": round(matrix.cpu / max(1, matrix.answers), 3)}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Each direction in each way, those of one direction one after the other."""
    return [Job(f"{direction}, {way}", partial(measure, direction, way, plan), ("rows", direction), way)
            for direction in DIRECTIONS for way in WAYS]


def head(plan: Plan) -> dict:
    """The plan and the models."""
    return {"plan": asdict(plan), "made with": {name: checkpoints.identity(name)[:8]
                                                for name in ("chat", "transformer", "vqvae", "codec")}}


def outdated(result: dict, head: dict) -> None:
    """A new `chat` makes its own rows untrue; those of the model before it stay."""
    if only_chat_is_new(result, head):
        for ways in result["rows"].values():
            for way in WAYS:
                if WAYS[way][0] == "chat":
                    ways.pop(way, None)
        result["made with"] = head["made with"]


STUDY = Study("ch11_one_try", Plan(), Plan(asked=4, split="validation"), jobs, head, outdated=outdated, minutes=True)
main = STUDY.run
