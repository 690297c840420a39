"""The any-to-any matrix on held-out combinations: `python -m mmcourse evaluate [--json]`.

score      the share of right answers to questions whose combinations, signs or voices nothing was trained on, with its 95 %
           interval (Wilson)
ceiling    the same judge on the truth, after the same trip through the tokenizers and voices as the answer: only by this may
           a score be divided
reference  another listener, or another voice, on the question itself: for comparison, never to be divided by
chance     the same judge on answers that were moved on, so that each belongs to another question

`_single`: one draft instead of the best of eight. `_direct` and `_said`: nothing, or the question in words, stands between
question and answer; each asks once, without further views of the question, and samples alike. With one draft these two
differ in nothing else; with eight each chooses among its drafts as its strategy does (`mmcourse.rerank`).
Seeds below 1,000 are validation (everything that was chosen was chosen there); a seed of 1,000 or more is a test.
"""
import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from mmcourse import checkpoints, rerank
from mmcourse.assistant import Assistant, load, painted, sounded
from mmcourse.checks import device_of
from mmcourse.files import read_json, write_json
from mmcourse.judges import PictureReader, read_sign
from mmcourse.judges.hearing import SphinxJudge, measure_codec, stack
from mmcourse.judges.metrics import if_installed, measure_decoders, pooled_psnr, wilson
from mmcourse.judges.picture_net import halves
from mmcourse.matrix import FIRST_TEST_SEED, short_table, split_of, table
from mmcourse.media import Text
from mmcourse.paths import RESULTS, cache_dir
from mmcourse.vocabulary import Segment
from mmcourse.world.edits import KINDS, Edit, sample_edit
from mmcourse.world.human_digits import VALIDATION_SPEAKER, load_human_digits, load_people
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import NOUNS, WORDS, Scene, caption, parse_caption, sample_scene
from mmcourse.world.speech import load_speech

BATCH = {"text": 25, "image": 100, "audio": 25}      # prompts that are answered together
DIGITS_A_SCENE = 3              # how many digits of people are asked for each of the `n` scenes, if there are as many
READ = {                        # what is compared: scene -> something that must be equal
    "object": lambda s: [g.noun for g in s.groups],
    "count": lambda s: s.groups,
    "ground": lambda s: s.background,
    "word": lambda s: s.sign,
    "exact": lambda s: (s.groups, s.background, s.sign),
}


# ---------------------------------------------------------------- one row

def same(answers: Sequence, truths: Sequence) -> list[bool]:
    """Which answers equal their truth."""
    return [a == t for a, t in zip(answers, truths, strict=True)]


def moved_on(answers: list) -> list:
    """Each answer moved on by a third of the list, so that it stands at another question."""
    by = max(1, len(answers) // 3)
    return answers[by:] + answers[:by]


def row(hits: Sequence[bool], *, ceiling: Sequence[bool] | None = None, chance: Sequence[bool] | None = None,
        reference: Sequence[bool] | None = None) -> dict:
    """One entry of the matrix: shares, rounded to four places. None stands for what does not exist or was not measured."""
    low, high = wilson(sum(hits), len(hits)) if len(hits) else (None, None)
    return {"score": _share(hits), "low": _round(low), "high": _round(high), "ceiling": _share(ceiling),
            "reference": _share(reference), "chance": _share(chance), "n": len(hits)}


def _share(hits: Sequence[bool] | None) -> float | None:
    return round(float(np.mean(hits)), 4) if hits is not None and len(hits) else None


def _round(x: float | None) -> float | None:
    return None if x is None else round(float(x), 4)


def picture_rows(read: list, best: list, truths: list[Scene], suffix: str = "") -> dict:
    """What was read in pictures (or captions) against the scenes that were asked for; `best`: what is read in the truth.

    `object`: the nouns. `count`: nouns, counts and places. `ground`: the background. `word`: the sign, where one was asked
    for. `exact`: all of it, and nothing that nobody asked for.
    """
    def part(key: str, scenes: list) -> list:
        return [READ[key](scenes[i]) if scenes[i] else None for i in kept]
    out = {}
    for key in READ:
        kept = [i for i, s in enumerate(truths) if key != "word" or s.sign]
        seen, ideal, asked = part(key, read), part(key, best), part(key, truths)
        out[key + suffix] = row(same(seen, asked), ceiling=same(ideal, asked), chance=same(moved_on(seen), asked))
    return out


def edit_done(seen: Scene | None, edit: Edit) -> dict[str, bool]:
    """Of a picture that was read as `seen`: whether the `change` is right, everything else is `kept`, and `both`.

    Things that the edit does not touch are part of what must be kept; that nothing else has come is part of the change.
    """
    if seen is None:
        return {"change": False, "kept": False, "both": False}
    before, after = edit.before, edit.after
    untouched = set(before.groups) & set(after.groups)
    parts = {"ground": seen.background == after.background, "sign": seen.sign == after.sign,
             "groups": set(seen.groups) - untouched == set(after.groups) - untouched}
    part = edit.kind if edit.kind in parts else "groups"
    rest = all(right for name, right in parts.items() if name != part)
    change, kept = parts[part], rest and untouched <= set(seen.groups)
    return {"change": change, "kept": kept, "both": change and kept}


def parsed(text: str) -> Scene | None:
    """The scene that a text describes, or None if it is no caption of the world."""
    try:
        return parse_caption(text)
    except ValueError:
        return None


# ---------------------------------------------------------------- the measurements

class Answers:
    """What the model said, kept in a file batch by batch, so that a run that was killed goes on where it was."""

    def __init__(self, path: Path | None = None):
        self.path = path
        self.kept: dict[str, list] = read_json(path) if path is not None and path.exists() else {}

    def get(self, label: str, make: Callable[[], list[Segment]]) -> list[Segment]:
        """The answers under this label, made if they are not there."""
        if label not in self.kept:
            self.kept[label] = [(s.modality, list(s.ids)) for s in make()]
            if self.path is not None:
                write_json(self.path, self.kept, indent=None)
        return [Segment(modality, tuple(ids)) for modality, ids in self.kept[label]]

    def forget(self) -> None:
        """The run is complete: the file goes."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Evaluation:
    """All measurements of one model on `n` held-out scenes (or of another `split`). Each public method measures one direction."""

    def __init__(self, assistant: Assistant, n: int = 200, seed: int = 0, progress: bool = True, people=None,
                 answers: Answers | None = None, split: str = "held-out"):
        self.a, self.n, self.seed, self.progress, self.people = assistant, n, seed, progress, people
        self.answers = Answers() if answers is None else answers
        rng = np.random.default_rng((seed, 77))
        self.scenes = [sample_scene(rng, split) for _ in range(n)]
        self.pictures = draw_batch(self.scenes)
        self.image_ids = self.a.vqvae.encode(self.pictures.to(device_of(self.a.vqvae))).cpu()
        self.reader = PictureReader()

    def ask(self, prompts: list[list[Segment]], want: str, label: str, views: list | None = None, **how) -> list[Segment]:
        """The model's answers, in batches, with the presets of `rerank` but for `how`."""
        from tqdm.auto import tqdm
        out: list[Segment] = []
        size = BATCH[want]
        for i in tqdm(range(0, len(prompts), size), desc=label, disable=not self.progress, leave=False):
            part = slice(i, i + size)
            out += self.answers.get(f"{label} {i}", lambda part=part, i=i: rerank.answer(
                self.a.transformer, self.a.vocabulary, prompts[part], want, seed=self.seed + i,
                views=views[part] if views else views, **how))
        return out

    def paint(self, segments: list[Segment]) -> torch.Tensor:
        """Image segments as pictures (n, 3, 64, 64)."""
        return painted(self.a.vqvae, segments)

    def written(self, segments: list[Segment]) -> list[str]:
        """Text segments as texts."""
        return [self.a.bpe.decode(s.ids).strip() for s in segments]

    def sound(self, segments: list[Segment]) -> list[np.ndarray]:
        """Audio segments as sounds (samples,)."""
        return sounded(self.a.codec, segments, self.a.vocabulary.audio_levels)

    # ---- pictures and texts

    @cached_property
    def truth_painted(self) -> torch.Tensor:
        """The true pictures after the trip through the image tokens."""
        return self.a.vqvae.decode(self.image_ids).cpu()

    @cached_property
    def truth_read(self) -> list[Scene | None]:
        """What the reader sees in them: the ceiling of everything that is drawn or described."""
        return self.reader.read(self.truth_painted)

    @cached_property
    def image_prompts(self) -> list[list[Segment]]:
        """One prompt a true picture."""
        return [[Segment("image", tuple(ids.flatten().tolist()))] for ids in self.image_ids]

    def text_image(self) -> dict:
        """Full captions of held-out scenes, drawn and read by the template reader; `sign_ocr` by OCR, `object_net` by a net."""
        prompts = [[self.a.segment(caption(s))] for s in self.scenes]
        pictures = self.paint(self.ask(prompts, "image", "text->image"))
        single = self.paint(self.ask(prompts, "image", "text->image, one draft", best_of=1))
        out = picture_rows(self.reader.read(pictures), self.truth_read, self.scenes)
        out |= picture_rows(self.reader.read(single), self.truth_read, self.scenes, "_single")
        signs = [i for i, s in enumerate(self.scenes) if s.sign]
        asked = [self.scenes[i].sign for i in signs]

        def ocr(images: torch.Tensor) -> list[str]:
            return [read_sign(images[i]) for i in signs]
        said = if_installed(lambda: (ocr(pictures), ocr(self.truth_painted)))
        out["sign_ocr"] = row([]) if said is None else row(same(said[0], asked), ceiling=same(said[1], asked),
                                                             chance=same(moved_on(said[0]), asked))
        net = checkpoints.load("picture_judge")
        seen, best = ([said[:2] for said in net.read(images)] for images in (pictures, self.truth_painted))
        asked = [halves(s)[:2] for s in self.scenes]
        out["object_net"] = row(same(seen, asked), ceiling=same(best, asked), chance=same(moved_on(seen), asked))
        return out

    def image_text(self) -> dict:
        """Pictures of held-out scenes, described. The ceiling is what the template reader makes of the same tokens."""
        out = {}
        for suffix, how in (("", {}), ("_single", {"best_of": 1, "temperature": 0.0})):
            texts = self.written(self.ask(self.image_prompts, "text", f"image->text{suffix}", **how))
            out |= picture_rows([parsed(t) for t in texts], self.truth_read, self.scenes, suffix)
        return out

    # ---- speech

    @cached_property
    def listeners(self) -> dict[str, Callable]:
        """Who hears words: key suffix -> clips to words. The first is the report judge, pocketsphinx the audit if it is there."""
        def net(name: str) -> Callable:
            judge = checkpoints.load(name)
            return lambda clips: judge.hear(stack(clips)) if clips else []
        sphinx = if_installed(SphinxJudge)
        return {"": net("word_judge"), "_second": net("second_listener")} | ({"_sphinx": sphinx.hear} if sphinx else {})

    @cached_property
    def speech(self) -> tuple[list, list[str]]:
        """Clips of held-out voices in random order, and their words."""
        corpus = load_speech(progress=self.progress)
        order = np.random.default_rng((self.seed, 78)).permutation(corpus.select(held_out=True))
        return [corpus.clips[i] for i in order], [corpus.words[i] for i in order]

    def imitated(self, words: list[str]) -> list[np.ndarray]:
        """True clips of these words by the training voices, which the model imitates, after the trip through its tokens."""
        corpus, rng = load_speech(progress=self.progress), np.random.default_rng((self.seed, 80))
        chosen = [int(rng.choice(corpus.select(word, held_out=False))) for word in words]
        return self.sound([self.a.sound_segment(corpus.clips[i]) for i in chosen])

    def spoken_rows(self, answers: list[Segment], truth: list[np.ndarray], words: list[str], key: str = "word",
                    listeners=("",)) -> dict:
        """Spoken answers in the ears of some `listeners`, beside what these hear in the truth (`imitated`)."""
        sounds, out = self.sound(answers), {}
        for suffix in listeners:
            if suffix not in self.listeners:
                out[key + suffix] = row([])
                continue
            heard, ideal = self.listeners[suffix](sounds), self.listeners[suffix](truth)
            out[key + suffix] = row(same(heard, words), ceiling=same(ideal, words), chance=same(moved_on(heard), words))
        return out

    def text_speech(self) -> dict:
        """Every word of the world in turn, spoken."""
        words = [WORDS[i % len(WORDS)] for i in range(self.n)]
        prompts, truth = [[self.a.segment(w)] for w in words], self.imitated(words)
        best = self.ask(prompts, "audio", "text->speech")
        single = self.ask(prompts, "audio", "text->speech, one draft", best_of=1)
        return (self.spoken_rows(best, truth, words, listeners=("", "_second", "_sphinx"))
                | self.spoken_rows(single, truth, words, "word_single"))

    def image_speech(self) -> dict:
        """Pictures of held-out scenes: is the first noun spoken?"""
        words, out = [s.groups[0].noun for s in self.scenes], {}
        truth = self.imitated(words)
        for key, how in (("word", {}), ("word_single", {"best_of": 1}), ("word_direct", {"say_first": False}),
                         ("word_direct_single", {"say_first": False, "best_of": 1})):
            answers = self.ask(self.image_prompts, "audio", f"image->speech, {key}", **how)
            out |= self.spoken_rows(answers, truth, words, key, ("", "_second", "_sphinx") if key == "word" else ("",))
        return out

    def heard(self, clips: list, words: list[str], key: str) -> dict:
        """Clips, written down: at several tempos, and the likeliest word after one hearing (`_single`)."""
        views = [self.a.augmented_views(c) for c in clips]
        prompts = [view[0] for view in views]                          # the first view is the clip as it is
        reference, out = same(self.listeners[""](clips), words), {}
        for suffix, how in (("", {"views": views}), ("_single", {"best_of": 1, "temperature": 0.0})):
            texts = self.written(self.ask(prompts, "text", f"speech->text, {key}{suffix}", **how))
            out[key + suffix] = row(same(texts, words), reference=reference, chance=same(moved_on(texts), words))
        return out

    def speech_text(self) -> dict:
        """Words of held-out voices, written down; digits of a person nothing trained on, if they are in the cache; and the
        recordings of `people`."""
        clips, words = (x[:self.n] for x in self.speech)
        out = self.heard(clips, words, "word")
        digits = load_human_digits()
        if digits is None:
            out |= {"human_digit": row([]), "human_digit_single": row([])}
        else:
            theirs = np.flatnonzero(np.array(digits.speakers) == VALIDATION_SPEAKER)
            order = np.random.default_rng((self.seed, 79)).permutation(theirs)[:DIGITS_A_SCENE * self.n]
            out |= self.heard([digits.clips[i] for i in order], [digits.words[i] for i in order], "human_digit")
        if self.people is not None:
            out |= self.heard(self.people.clips, self.people.words, "people")
        return out

    def speech_image(self) -> dict:
        """Nouns spoken by held-out voices: is the noun the first in the picture? `object`: heard at several tempos."""
        clips, labels = self.speech
        kept = [i for i, w in enumerate(labels) if w in NOUNS][:self.n]
        words, views = [labels[i] for i in kept], [self.a.augmented_views(clips[i]) for i in kept]
        prompts = [view[0] for view in views]                          # the first view is the clip as it is
        reference = same(self.listeners[""]([clips[i] for i in kept]), words)
        ceiling, out = [bool(s) and s.groups[0].noun == t.groups[0].noun for s, t in zip(self.truth_read, self.scenes)], {}
        for key, how in (("object", {"views": views}), ("object_single", {"views": views, "best_of": 1}), *two_by_two("object")):
            read = self.reader.read(self.paint(self.ask(prompts, "image", f"speech->image, {key}", **how)))
            seen = [s and s.groups[0].noun for s in read]
            out[key] = row(same(seen, words), ceiling=ceiling, reference=reference, chance=same(moved_on(seen), words))
        return out

    # ---- edits

    def editing(self) -> dict:
        """A picture and an instruction: is what was to change right, is the rest as it was? `copy`: the picture given back."""
        rng = np.random.default_rng((self.seed, 78))
        edits = [sample_edit(rng, "held-out") for _ in range(self.n)]
        device, sides = device_of(self.a.vqvae), zip(*((e.before, e.after) for e in edits))
        before, after = (self.a.vqvae.encode(draw_batch(list(scenes)).to(device)).cpu() for scenes in sides)
        prompts = [[Segment("image", tuple(ids.flatten().tolist())), self.a.segment(Text(e.instruction))]
                   for ids, e in zip(before, edits, strict=True)]
        best = self.reader.read(self.a.vqvae.decode(after))

        def measured(seen: list, key: str, kind: str | None = None) -> dict:
            hits, ideal, chance = ([edit_done(s, e)[key] for s, e in zip(x, edits) if kind in (None, e.kind)]
                                   for x in (seen, best, moved_on(seen)))
            return row(hits, ceiling=ideal, chance=chance)
        read = self.reader.read(self.paint(self.ask(prompts, "image", "edits")))
        out = {key: measured(read, key) for key in ("change", "kept", "both")}
        for key, how in (("both_single", {"best_of": 1}), *two_by_two("both", views=[])):
            out[key] = measured(self.reader.read(self.paint(self.ask(prompts, "image", f"edits, {key}", **how))), "both")
        out["copy"] = measured([e.before for e in edits], "both")
        return out | {kind: measured(read, "both", kind) for kind in KINDS}

    # ---- parts

    def tokenizer_image(self) -> dict:
        """True held-out pictures through the image tokens and back."""
        hits = picture_rows(self.truth_read, self.truth_read, self.scenes)
        return {"object": hits["object"]["score"], "word": hits["word"]["score"], "exact": hits["exact"]["score"],
                "psnr_db": round(pooled_psnr(self.truth_painted, self.pictures), 2), "codes_used": len(self.image_ids.unique())}

    def tokenizer_audio(self) -> dict:
        """Speech of held-out voices through the codec and back: all levels, and those that the transformer models."""
        codec, used = self.a.codec, self.a.vocabulary.audio_levels
        bits = codec.frame_rate * math.log2(codec.codebook_size)       # a second, for each level
        out = {"bits_per_second": round(bits * codec.levels), "bits_per_second_used": round(bits * used)}
        found = if_installed(lambda: measure_codec(
            codec, load_speech(self.progress), checkpoints.load("word_judge"), levels=(used, codec.levels),
            words_per_voice=min(42, max(8, self.n // 8)), seed=self.seed))
        if found is None:                                              # pystoi and pesq come with the test extra
            return {"stoi": None, "pesq": None, **out}
        full, part = (found[f"{levels} levels"] for levels in (codec.levels, used))
        return {"stoi": full["stoi"], "pesq": full["pesq"], "word": full["judge"], "stoi_used": part["stoi"],
                "pesq_used": part["pesq"], "word_used": part["judge"], "word_true": found["true"]["judge"], **out}

    def decoder_image(self) -> dict:
        """Frechet distance to true pictures: the plain decoder against the diffusion decoder, which users see."""
        if self.a.decoder is None:
            return {"fd_plain": None, "fd_diffusion": None}
        return measure_decoders(self.a.vqvae, self.a.decoder, checkpoints.load("picture_judge"), n=max(self.n, 200),
                                seed=self.seed)


def two_by_two(key: str, **how) -> list[tuple[str, dict]]:
    """(say first) x (best of n), all else the same: names of rows, and how each is asked."""
    return [(f"{key}_said", {"say_first": True, **how}), (f"{key}_said_single", {"say_first": True, "best_of": 1, **how}),
            (f"{key}_direct", {"say_first": False}), (f"{key}_direct_single", {"say_first": False, "best_of": 1})]


DIRECTIONS = {"text->image": "text_image", "image->text": "image_text", "text->speech": "text_speech",
              "speech->text": "speech_text", "image->speech": "image_speech", "speech->image": "speech_image",
              "image+text->image": "editing", "tokenizer:image": "tokenizer_image", "tokenizer:audio": "tokenizer_audio",
              "decoder:image": "decoder_image"}


def evaluate(assistant: Assistant | None = None, n: int = 200, seed: int = 0, only=None, progress: bool = True,
             people=None, resume: bool = False) -> dict:
    """The whole matrix as a dict: direction -> measure -> row.

    Args:
        only: names of directions. people: recordings of `load_people`, asked too.
        resume: keep answers in the cache until the run is complete; a run that was killed goes on.
    """
    if n < 3:
        raise ValueError(f"n must be at least 3, got {n}: the chance level needs answers to shuffle")
    answers = None
    if resume:
        weights = "-".join(checkpoints.identity(part)[:8] for part in ("transformer", "vqvae", "codec"))
        answers = Answers(cache_dir() / "runs" / f"evaluate-{weights}-{n}-{seed}.json")
    evaluation = Evaluation(assistant or load(), n, seed, progress, people, answers)
    out = {name: getattr(evaluation, method)() for name, method in DIRECTIONS.items() if only is None or name in only}
    if only is None:
        evaluation.answers.forget()
    return out


# ---------------------------------------------------------------- the command

def options(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="mmcourse evaluate", description="The any-to-any matrix on held-out combinations.")
    parser.add_argument("--n", type=int, default=200, help="held-out scenes (default 200)")
    parser.add_argument("--seed", type=int, default=0, help=f"below {FIRST_TEST_SEED}: validation; above: a test, read once")
    parser.add_argument("--only", help="directions, with commas: text-image,speech-text,tokenizer:image")
    parser.add_argument("--people", metavar="FOLDER", help="also recordings of digits, digit_person_take.wav, in this folder")
    parser.add_argument("--all", action="store_true", help="every row under its own key, not the short table")
    parser.add_argument("--json", action="store_true", help="print JSON alone, for programs (progress goes to stderr)")
    parser.add_argument("--save", action="store_true", help="write data/results/evaluate.json, which the chapters quote")
    args = parser.parse_args(argv)
    if args.only:
        known = {name.replace("->", "-"): name for name in DIRECTIONS}
        args.only = [known.get(x.strip().replace("->", "-")) for x in args.only.split(",")]
        if None in args.only:
            parser.error(f"--only takes some of {', '.join(known)}")
    if args.n < 3:
        parser.error(f"--n must be at least 3, got {args.n}")
    return args


def main(argv: list[str] | None = None) -> int:
    """`python -m mmcourse evaluate`."""
    args = options(argv)
    people = load_people(args.people) if args.people else None
    result = evaluate(n=args.n, seed=args.seed, only=args.only, people=people, resume=True)
    if args.save:
        write_json(RESULTS / "evaluate.json", {"n": args.n, "seed": args.seed, "split": split_of(args.seed), "matrix": result})
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"{split_of(args.seed)} questions (seed {args.seed}, n = {args.n})", file=sys.stderr)
    print(table(result) if args.all else short_table(result))
    return 0
