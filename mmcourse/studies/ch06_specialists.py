"""One net for all modalities, or three specialists? `python -m mmcourse.studies.ch06_specialists`, about twenty CPU minutes.

Three tasks: draw (text to picture), describe (picture to text), and speech (hear and speak words). One net learns all three. The
specialists learn one each, from the very same sequences, a step at a time, so that tokens are equal; once as three nets of
the one net's size, and once as three nets that share its size: a third of the parameters of its blocks each. Measured on held-out
combinations and voices, three seeds. Written to data/results/ch06_specialists.json.
"""
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse import checkpoints
from mmcourse.bpe import BPETokenizer
from mmcourse.dataset import Clips, Mixture, heard_clips, mixture_loss, pad, speech_tokens
from mmcourse.generate import generate
from mmcourse.judges import PictureReader
from mmcourse.optim import Optim
from mmcourse.paths import CHECKPOINTS, RESULTS
from mmcourse.recipes.transformer import AUDIO_CODES, AUDIO_LEVELS, make_model
from mmcourse.training import Run, train
from mmcourse.vocabulary import Vocabulary
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import BACKGROUNDS, COUNTS, PLACES, Group, Scene, caption, is_held_out
from mmcourse.world.speech import load_speech

TASKS = {"draw": {"text->image": 6}, "describe": {"image->text": 4}, "speech": {"text->audio": 4, "audio->text": 4}}
NAMES = ("apple", "bee", "book", "cat", "crab", "fish", "guitar", "house", "key", "star", "tree", "whale")
WHOLE = {"width": 96, "layers": 3, "heads": 4}
THIRD = {"width": 68, "layers": 2, "heads": 4}          # 12 x width^2 x layers: a third of that of `WHOLE`
STEPS, SEEDS = 1200, 3


class World:
    """The small world, tokenised: one `Mixture` for training and one of held-out scenes and voices.

    Args:
        copies: how many augmented copies of each recording are listened to in training (`heard_clips`); 0: the recordings alone.
    """

    def __init__(self, copies: int = 0):
        self.bpe = BPETokenizer.load(CHECKPOINTS / "bpe.json")
        self.vqvae, codec = checkpoints.load("vqvae"), checkpoints.load("codec")
        self.vocabulary = Vocabulary(self.bpe.vocab_size, self.vqvae.vocab_size, AUDIO_CODES, AUDIO_LEVELS)
        kinds = [(i + 1, place) for i in range(len(COUNTS)) for place in (PLACES if i < 2 else ("",))]
        scenes = [Scene((Group(noun, n, place),), background) for noun in NAMES for background in BACKGROUNDS for n, place in kinds]
        corpus, self.mixtures = load_speech(progress=False), {}
        for held_out in (False, True):
            part = [s for s in scenes if is_held_out(s) == held_out]
            images = torch.cat([self.vqvae.encode(draw_batch(part[i:i + 64])).flatten(1) for i in range(0, len(part), 64)])
            kept = [i for noun in NAMES for i in corpus.select(noun, held_out=held_out)]
            sounds, words = [corpus.clips[i] for i in kept], [corpus.words[i] for i in kept]
            clips = Clips(speech_tokens(codec, sounds, AUDIO_LEVELS, progress=False), words)
            heard = None
            if copies and not held_out:
                heard = heard_clips(codec, sounds, words, AUDIO_LEVELS, copies, "small world", progress=False)
            self.mixtures[held_out] = Mixture(self.vocabulary, self.bpe, part, images.numpy(), clips, {}, heard=heard)

    def batch(self, rng: np.random.Generator, tasks) -> tuple[torch.Tensor, ...]:
        """ids and weights of each task; the sequences of a task depend on the step alone, whoever else is learnt."""
        mixture, out, seed = self.mixtures[False], [], int(rng.integers(2**31))
        for number, task in enumerate(TASKS):
            if task in tasks:
                own = np.random.default_rng((seed, number))
                rows = [mixture.weighted(mixture.pair(d, own)) for d, n in TASKS[task].items() for _ in range(n)]
                out += [pad([r[0] for r in rows]), pad([r[1] for r in rows], torch.float)]
        return tuple(out)

    def questions(self, direction: str, n: int = 60) -> list:
        """`n` held-out pairs of a direction, always the same."""
        return [self.mixtures[True].pair(direction, np.random.default_rng((5, i))) for i in range(n)]


@torch.no_grad()
def answer_bits(model, world: World, direction: str) -> float:
    """Mean bits of a token of the answers to held-out questions, closing tokens included."""
    total, count = 0.0, 0
    for given, answer in world.questions(direction):
        row = torch.tensor([world.vocabulary.pack([given, answer])])
        losses = F.cross_entropy(model(row[:, :-1])[0], row[0, 1:], reduction="none")
        total, count = total + losses[len(given.ids) + 2:].sum().item(), count + len(answer.ids) + 1
    return total / count / math.log(2)


def share_right(model, world: World, reader: PictureReader, direction: str) -> float | None:
    """The share of right answers to held-out questions: the noun drawn, the caption or the word written. None: not judged."""
    questions, want = world.questions(direction), direction.split("->")[1]
    if want == "audio":
        return None
    answers = generate(model, world.vocabulary, [[given] for given, _ in questions], want, temperature=0.0)
    texts = [world.bpe.decode(q[0 if want == "image" else 1].ids).strip() for q in questions]
    if want == "text":
        return float(np.mean([world.bpe.decode(a.ids).strip() == t for a, t in zip(answers, texts, strict=True)]))
    said = {caption(s): s.groups[0].noun for s in world.mixtures[True].scenes}
    pictures = world.vqvae.decode(torch.tensor([a.ids for a in answers]).view(-1, 8, 8))   # (n, 64) -> (n, 8, 8)
    asked = [said.get(t) for t in texts]                               # None: a caption that says only a part, left out
    return float(np.mean([bool(s) and s.groups[0].noun == n for s, n in zip(reader.read(pictures), asked, strict=True) if n]))


def learn(world: World, tasks, size: dict, seed: int, steps: int = STEPS) -> tuple[torch.nn.Module, float, int]:
    """A net trained on these tasks, its CPU minutes, and the parameters of its blocks."""
    model = make_model(world.vocabulary, seed, **size)
    history = train(model, lambda rng: world.batch(rng, tasks), mixture_loss, steps=steps,
                    optim=Optim("muon", lr=3e-3, warmup=20), run=Run(seed=seed, progress=False))
    return model, history.cpu_minutes, sum(p.numel() for p in model.blocks.parameters())


def compare(steps: int = STEPS, seeds: int = SEEDS) -> list[dict]:
    """A row for each seed, kind of net and direction."""
    world, reader, rows = World(), PictureReader(), []
    for seed in range(seeds):
        for kind, size, groups in (("one net", WHOLE, [list(TASKS)]), ("specialist, same size", WHOLE, [[t] for t in TASKS]),
                                   ("specialist, a third", THIRD, [[t] for t in TASKS])):
            for tasks in groups:
                model, minutes, parameters = learn(world, tasks, size, seed, steps)
                for direction in (d for task in tasks for d in TASKS[task]):
                    share = share_right(model, world, reader, direction)
                    rows.append({"seed": seed, "net": kind, "direction": direction,
                                 "bits": round(answer_bits(model, world, direction), 4),
                                 "right": None if share is None else round(share, 4), "parameters": parameters,
                                 "cpu_minutes": round(minutes, 3)})
                    print(rows[-1], flush=True)
        save_rows(RESULTS / "ch06_specialists.json", {"steps": steps, "tokenizers": made_with()}, rows)
    return rows


def made_with() -> dict[str, str]:
    """The tokenizers that a result rests on: name -> the first digits of its hash."""
    return {name: checkpoints.identity(name)[:8] for name in ("bpe", "vqvae", "codec")}


def save_rows(file: Path, head: dict, rows: list[dict]) -> None:
    """Write `head` and, under "rows", a line for each row, so that a crash leaves the old file whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    part = file.with_name(file.name + ".part")
    part.write_text(f'{json.dumps(head)[:-1]}, "rows": [\n  {lines}\n]}}\n', encoding="utf-8")
    os.replace(part, file)


if __name__ == "__main__":
    torch.set_num_threads(1)
    start = time.process_time()
    compare()
    print(f"{(time.process_time() - start) / 60:.1f} CPU minutes")
