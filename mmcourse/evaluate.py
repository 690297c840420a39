"""The any-to-any matrix on held-out combinations, with ceilings and chance: `python -m mmcourse evaluate [--json]`.

score    what the model reaches on scenes, signs and voices that nothing was trained on
ceiling  the same judge on the truth, sent through the tokenizers: no answer of the model can be expected to score higher
chance   the same judge on answers that were shuffled, so that each belongs to another question
"""
import argparse
import json
import math
import sys

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.assistant import Assistant, Text, load, says_first, settings
from mmcourse.generate import generate_best
from mmcourse.judges import PictureReader, read_sign
from mmcourse.judges.hearing import stack
from mmcourse.judges.picture_net import halves
from mmcourse.paths import RESULTS
from mmcourse.vocabulary import Segment
from mmcourse.world.edits import KINDS, Edit, sample_edit
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import NOUNS, WORDS, Scene, caption, parse_caption, sample_scene

BATCH = 25
EDIT_DIRECT = {"temperature": 0.0, "best_of": 1, "guidance": 1.0}
READ = {                                                # what is compared: scene -> something that must be equal
    "object": lambda s: s and [g.noun for g in s.groups],
    "count": lambda s: s and s.groups,
    "ground": lambda s: s and s.background,
    "word": lambda s: s and s.sign,
}


def row(score, ceiling, chance, n: int) -> dict:
    """One entry of the matrix. Numbers are rounded to four places; None stands for what could not be measured here."""
    return {"score": _round(score), "ceiling": _round(ceiling), "chance": _round(chance), "n": n}


def _round(x):
    return None if x is None else round(float(x), 4)


def agreement(answers: list, truths: list) -> float | None:
    """The share of answers that equal their truth; None if nothing was asked."""
    return float(np.mean([a == t for a, t in zip(answers, truths, strict=True)])) if truths else None


def shuffled(answers: list, truths: list) -> float | None:
    """The same with each answer moved on by a third of the list: what an answer scores that never saw its question."""
    return agreement(moved_on(answers), truths)


def moved_on(answers: list) -> list:
    """Each answer moved on by a third of the list, so that it stands at another question."""
    by = max(1, len(answers) // 3)
    return answers[by:] + answers[:by]


def picture_rows(read: list, ceiling: list, truths: list[Scene]) -> dict:
    """Object, count and place, ground and sign of pictures that were read, against the scenes that were asked for."""
    out = {}
    for key, part in READ.items():
        keep = [i for i, s in enumerate(truths) if key != "word" or s.sign]
        a, c, t = ([part(x[i]) for i in keep] for x in (read, ceiling, truths))
        out[key] = row(agreement(a, t), agreement(c, t), shuffled(a, t), len(keep))
    return out


class Evaluation:
    """All measurements of one model on `n` held-out scenes. Each public method measures one direction."""

    def __init__(self, assistant: Assistant, n: int = 200, seed: int = 0, progress: bool = True):
        self.a, self.n, self.seed, self.progress = assistant, n, seed, progress
        rng = np.random.default_rng((seed, 77))
        self.scenes = [sample_scene(rng, "held-out") for _ in range(n)]
        self.pictures = draw_batch(self.scenes)
        self.image_ids = self.a.vqvae.encode(self.pictures)
        self.reader = PictureReader()
        self._speech = None

    def ask(self, prompts: list[list[Segment]], want: str, label: str, think: bool | None = None,
            views: list[list[list[Segment]]] | None = None, **sampling) -> list[Segment]:
        """The model's answers, in batches, with the assistant's own settings but for `think` and those in `sampling`."""
        from tqdm.auto import tqdm
        if think is None:
            think = bool(prompts) and says_first(prompts[0], want)
        out = []
        for i in tqdm(range(0, len(prompts), BATCH), desc=label, disable=not self.progress):
            batch_views = views[i:i + BATCH] if views else None
            out += generate_best(self.a.transformer, self.a.vocabulary, prompts[i:i + BATCH], want, seed=self.seed + i,
                                 think=think, views=batch_views, **{**settings(prompts[i], want), **sampling})
        return out

    def paint(self, segments: list[Segment]) -> torch.Tensor:
        return self.a.vqvae.decode(torch.tensor([s.ids for s in segments]).view(-1, 8, 8))     # (n, 64) -> (n, 8, 8)

    def written(self, segments: list[Segment]) -> list[str]:
        return [self.a.bpe.decode(s.ids).strip() for s in segments]

    def image_prompts(self) -> list[list[Segment]]:
        return [[Segment("image", tuple(ids.flatten().tolist()))] for ids in self.image_ids]

    def text_image(self) -> dict:
        """Full captions of held-out scenes, drawn and read by the template reader; `sign_ocr` by a second reader."""
        prompts = [[self.a.segment(caption(s))] for s in self.scenes]
        pictures = self.paint(self.ask(prompts, "image", "text->image"))
        truth = self.a.vqvae.decode(self.image_ids)
        best = self.reader.read(truth)
        out = picture_rows(self.reader.read(pictures), best, self.scenes)
        single = self.reader.read(self.paint(self.ask(prompts, "image", "text->image, one try", best_of=1)))
        rows = picture_rows(single, best, self.scenes)
        out.update({"object_single": rows["object"], "word_single": rows["word"]})
        signs = [i for i, s in enumerate(self.scenes) if s.sign]
        try:
            words = [[read_sign(x[i]) for i in signs] for x in (pictures, truth)]
            asked = [self.scenes[i].sign for i in signs]
            out["sign_ocr"] = row(agreement(words[0], asked), agreement(words[1], asked), shuffled(words[0], asked), len(signs))
        except ImportError:
            out["sign_ocr"] = row(None, None, None, len(signs))
        out["object_net"] = self._second_opinion(pictures, truth)
        return out

    def _second_opinion(self, pictures, truth) -> dict:
        """The nouns on the left and on the right, in the eyes of a classifier that was trained on true pictures."""
        net = checkpoints.load("picture_judge")
        seen, best = ([said[:2] for said in net.read(images)] for images in (pictures, truth))
        asked = [halves(s)[:2] for s in self.scenes]
        return row(agreement(seen, asked), agreement(best, asked), shuffled(seen, asked), self.n)

    def image_text(self) -> dict:
        """Pictures of held-out scenes, described: the whole caption, and its parts; `_single`: the likeliest caption."""
        answers = self.ask(self.image_prompts(), "text", "image->text")
        texts = self.written(answers)
        true = [caption(s) for s in self.scenes]
        out = {"exact": row(agreement(texts, true), 1.0, shuffled(texts, true), self.n)}
        out.update(picture_rows([_parsed(t) for t in texts], self.scenes, self.scenes))
        single = self.written(self.ask(self.image_prompts(), "text", "image->text, one try", best_of=1, temperature=0.0))
        out["exact_single"] = row(agreement(single, true), 1.0, shuffled(single, true), self.n)
        out["word_single"] = picture_rows([_parsed(t) for t in single], self.scenes, self.scenes)["word"]
        return out

    # ---- speech -------------------------------------------------------------------------------------------------

    @property
    def speech(self):
        """Clips of held-out voices, one for each (word, voice) that fits into n, and the judge that hears words."""
        if self._speech is None:
            from mmcourse.world.speech import load_speech
            corpus = load_speech(progress=self.progress)
            order = np.random.default_rng((self.seed, 78)).permutation(corpus.select(held_out=True))
            self._speech = ([corpus.clips[i] for i in order], [corpus.words[i] for i in order],
                            checkpoints.load("word_judge"))
        return self._speech

    def sound(self, segment: Segment) -> np.ndarray:
        ids = torch.tensor(segment.ids).view(1, -1, self.a.vocabulary.audio_levels)          # (1, frames, levels)
        return self.a.codec.decode(ids)[0].numpy()

    def hear(self, clips: list[np.ndarray]) -> list[str]:
        return [word for i in range(0, len(clips), BATCH) for word in self.speech[2].hear(stack(clips[i:i + BATCH]))]

    def _through_codec(self, words: list[str]) -> list[str]:
        """What the judge hears in true clips of these words that went through the tokens the model uses."""
        clips, labels, _ = self.speech
        where = {w: [i for i, x in enumerate(labels) if x == w] for w in set(words)}
        chosen = [where[w][k % len(where[w])] for k, w in enumerate(words)]
        return self.hear([self.sound(self.a.sound_segment(clips[i])) for i in chosen])

    def speech_text(self) -> dict:
        """Words of held-out voices, written down; digits of a person never heard in training, if they are in the cache, three
        times as many.

        `_single`: the likeliest word after one hearing.
        """
        clips, labels, _ = self.speech
        clips, labels = clips[:self.n], labels[:self.n]
        prompts, ceiling = [[self.a.sound_segment(c)] for c in clips], agreement(self.hear(clips), labels)
        out, augmented_views = {}, [self.a.augmented_views(c) for c in clips]
        for key, how in (("word", {"views": augmented_views}), ("word_single", {"best_of": 1, "temperature": 0.0})):
            words = self.written(self.ask(prompts, "text", f"speech->text, {key}", **how))
            out[key] = row(agreement(words, labels), ceiling, shuffled(words, labels), len(labels))
        return out | self._human_digits()

    def _human_digits(self) -> dict[str, dict]:
        from mmcourse.world.human_digits import HELD_OUT_SPEAKER, load_human_digits
        digits = load_human_digits()
        if digits is None:
            return {"human_digit": row(None, None, 0.1, 0), "human_digit_single": row(None, None, 0.1, 0)}
        unknown = np.flatnonzero(np.array(digits.speakers) == HELD_OUT_SPEAKER)
        order = np.random.default_rng((self.seed, 79)).permutation(unknown)[:3 * self.n]   # one person: as many as there are
        clips, labels = [digits.clips[i] for i in order], [digits.words[i] for i in order]
        prompts, ceiling, out = [[self.a.sound_segment(c)] for c in clips], agreement(self.hear(clips), labels), {}
        for key, how in (("human_digit", {"views": [self.a.augmented_views(c) for c in clips]}),
                         ("human_digit_single", {"best_of": 1, "temperature": 0.0})):
            words = self.written(self.ask(prompts, "text", f"speech->text, {key}", **how))
            out[key] = row(agreement(words, labels), ceiling, 0.1, len(labels))
        return out

    def text_speech(self) -> dict:
        """Every word of the world in turn, spoken, and heard by the judge."""
        words = [WORDS[i % len(WORDS)] for i in range(self.n)]
        answers = self.ask([[self.a.segment(w)] for w in words], "audio", "text->speech")
        heard = self.hear([self.sound(s) for s in answers])
        return {"word": row(agreement(heard, words), agreement(self._through_codec(words), words), shuffled(heard, words),
                            self.n)}

    def image_speech(self) -> dict:
        """Pictures of held-out scenes: is the first noun spoken? `word_direct`: without saying it in text first."""
        words = [s.groups[0].noun for s in self.scenes]
        ceiling, out = agreement(self._through_codec(words), words), {}
        for key, think in (("word", None), ("word_direct", False)):
            heard = self.hear([self.sound(s) for s in self.ask(self.image_prompts(), "audio", f"image->speech, {key}", think)])
            out[key] = row(agreement(heard, words), ceiling, shuffled(heard, words), self.n)
        return out

    def speech_image(self) -> dict:
        """Nouns spoken by held-out voices: is the noun the first in the picture? `object_direct`: not said in text first."""
        clips, labels, _ = self.speech
        keep = [i for i, w in enumerate(labels) if w in NOUNS][:self.n]
        words, prompts = [labels[i] for i in keep], [[self.a.sound_segment(clips[i])] for i in keep]
        ceiling, out = agreement(self.hear([clips[i] for i in keep]), words), {}
        augmented_views = [self.a.augmented_views(clips[i]) for i in keep]
        for key, how in (("object", {"views": augmented_views}), ("object_direct", {"think": False})):
            pictures = self.paint(self.ask(prompts, "image", f"speech->image, {key}", **how))
            read = [s and s.groups[0].noun for s in self.reader.read(pictures)]
            out[key] = row(agreement(read, words), ceiling, shuffled(read, words), len(words))
        return out

    def editing(self) -> dict:
        """A picture and an instruction: is what was to change right, is the rest as it was?

        `both_direct`: without saying first what it shall be. `copy`: the picture given back.
        """
        rng = np.random.default_rng((self.seed, 78))
        edits = [sample_edit(rng, "held-out") for _ in range(self.n)]
        before, after = (self.a.vqvae.encode(draw_batch([getattr(e, when) for e in edits])) for when in ("before", "after"))
        prompts = [[Segment("image", tuple(ids.flatten().tolist())), self.a.segment(Text(e.instruction))]
                   for ids, e in zip(before, edits, strict=True)]
        answers = self.ask(prompts, "image", "editing")
        read, best = self.reader.read(self.paint(answers)), self.reader.read(self.a.vqvae.decode(after))
        direct = self.reader.read(self.paint(self.ask(prompts, "image", "editing, direct", think=False, **EDIT_DIRECT)))

        def measured(seen: list, key: str) -> dict:
            return row(*(np.mean([edit_done(s, e)[key] for s, e in zip(x, edits, strict=True)])
                         for x in (seen, best, moved_on(seen))), len(edits))
        out = {**{key: measured(read, key) for key in ("change", "kept", "both")}, "both_direct": measured(direct, "both")}
        out["copy"] = row(np.mean([edit_done(e.before, e)["both"] for e in edits]), 1.0, 0.0, len(edits))
        for kind in KINDS:
            done = [edit_done(s, e)["both"] for s, e in zip(read, edits, strict=True) if e.kind == kind]
            out[kind] = row(np.mean(done) if done else None, 1.0, 0.0, len(done))
        return out

    # ---- parts --------------------------------------------------------------------------------------------------

    def tokenizer_image(self) -> dict:
        """True held-out pictures through the image tokens and back."""
        back = self.a.vqvae.decode(self.image_ids)
        read = self.reader.read(back)
        signs = [i for i, s in enumerate(self.scenes) if s.sign]
        return {"object": _round(agreement([READ["object"](s) for s in read], [READ["object"](s) for s in self.scenes])),
                "word": _round(agreement([read[i] and read[i].sign for i in signs], [self.scenes[i].sign for i in signs])),
                "psnr_db": round(-10 * (back - self.pictures).square().mean().log10().item(), 2),
                "codes_used": len(self.image_ids.unique())}

    def tokenizer_audio(self) -> dict:
        """Speech of held-out voices through the codec and back: all levels, and those that the transformer models."""
        from mmcourse.judges.hearing import measure_codec
        from mmcourse.world.speech import load_speech
        codec, used = self.a.codec, self.a.vocabulary.audio_levels
        bits = codec.frame_rate * math.log2(codec.codebook_size)       # a second, for each level
        out = {"bits_per_second": round(bits * codec.levels), "bits_per_second_used": round(bits * used)}
        try:
            found = measure_codec(codec, load_speech(self.progress), self.speech[2], levels=(used, codec.levels),
                                  words_per_voice=min(42, max(8, self.n // 8)), seed=self.seed)
        except ImportError:                                            # pystoi and pesq come with the test extra
            return {"stoi": None, "pesq": None, **out}
        full, part = (found[f"{levels} levels"] for levels in (codec.levels, used))
        return {"stoi": full["stoi"], "pesq": full["pesq"], "word": full["judge"], "stoi_used": part["stoi"],
                "pesq_used": part["pesq"], "word_used": part["judge"], "word_true": found["true"]["judge"], **out}

    def decoder_image(self) -> dict:
        """Frechet distance to true pictures: the plain decoder against the diffusion decoder."""
        if self.a.decoder is None:
            return {"fd_plain": None, "fd_diffusion": None}
        from mmcourse.recipes.decoder import measure
        return measure(n=max(self.n, 200), seed=self.seed)


def edit_done(seen: Scene | None, edit: Edit) -> dict[str, bool]:
    """Of a picture that was read as `seen`: whether the `change` is right, everything else is `kept`, and `both`."""
    part = edit.kind if edit.kind in ("ground", "sign") else "groups"
    change = seen is not None and getattr(seen, part) == getattr(edit.after, part)
    others = [p for p in ("ground", "sign", "groups") if p != part]
    kept = seen is not None and all(getattr(seen, p) == getattr(edit.after, p) for p in others)
    return {"change": change, "kept": kept, "both": change and kept}


def _parsed(text: str):
    try:
        return parse_caption(text)
    except ValueError:
        return None


DIRECTIONS = {"text->image": "text_image", "image->text": "image_text", "text->speech": "text_speech",
              "speech->text": "speech_text", "image->speech": "image_speech", "speech->image": "speech_image",
              "image+text->image": "editing", "tokenizer:image": "tokenizer_image", "tokenizer:audio": "tokenizer_audio",
              "decoder:image": "decoder_image"}


def evaluate(assistant: Assistant | None = None, n: int = 200, seed: int = 0, only=None, progress: bool = True) -> dict:
    """The whole matrix as a dict: direction -> measure -> row. `only`: names of directions."""
    if n < 3:
        raise ValueError(f"n must be at least 3, got {n}: the chance level needs answers to shuffle")
    evaluation = Evaluation(assistant or load(), n, seed, progress)
    return {name: getattr(evaluation, method)() for name, method in DIRECTIONS.items() if only is None or name in only}


def table(result: dict) -> str:
    """The matrix for people."""
    lines = [f"{'direction':<16} {'measure':<12} {'score':>7} {'ceiling':>8} {'share':>6} {'chance':>7} {'n':>5}"]
    for direction, measures in result.items():
        for name, value in measures.items():
            if not isinstance(value, dict):
                lines.append(f"{direction:<16} {name:<16} {value}")
                continue
            known = value["score"] is not None and value["ceiling"]
            cells = [f"{value[k]:.3f}" if value[k] is not None else "-" for k in ("score", "ceiling", "chance")]
            share = f"{value['score'] / value['ceiling']:.0%}" if known else "-"
            lines.append(f"{direction:<16} {name:<12} {cells[0]:>7} {cells[1]:>8} {share:>6} {cells[2]:>7} {value['n']:>5}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """`python -m mmcourse evaluate`."""
    parser = argparse.ArgumentParser(prog="mmcourse evaluate", description="The any-to-any matrix on held-out combinations.")
    parser.add_argument("--n", type=int, default=200, help="held-out scenes (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="directions, with commas: text-image,speech-text,tokenizer:image")
    parser.add_argument("--json", action="store_true", help="print JSON alone, for programs")
    parser.add_argument("--save", action="store_true", help="write data/results/evaluate.json, which the chapters quote")
    args = parser.parse_args(argv)
    only = None
    if args.only:
        known = {name.replace("->", "-"): name for name in DIRECTIONS}
        only = [known.get(x.strip().replace("->", "-")) for x in args.only.split(",")]
        if None in only:
            parser.error(f"--only takes some of {', '.join(known)}; got {args.only!r}")
    if args.n < 3:
        parser.error(f"--n must be at least 3, got {args.n}")
    result = evaluate(n=args.n, seed=args.seed, only=only, progress=sys.stderr.isatty() or not args.json)
    if args.save:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "evaluate.json").write_text(json.dumps({"n": args.n, "seed": args.seed, "matrix": result}, indent=1) + "\n")
    print(json.dumps(result) if args.json else table(result))
    return 0
