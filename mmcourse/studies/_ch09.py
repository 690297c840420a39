"""What the studies of chapter 09 share: the small tokenizer, the batches, the net, how it is asked, two judges.

The world of invented names is `mmcourse.world.facts`; here its texts and scenes become tokens. A picture has
32x32 pixels and 16 tokens, so that a net is trained in a minute or two.
"""
import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn

from mmcourse.dataset import GIVEN_WEIGHT, mixture_loss, pad
from mmcourse.files import locked
from mmcourse.generate import generate
from mmcourse.judges.picture_net import PictureNet, picture_loss, targets
from mmcourse.optim import Optim
from mmcourse.painters import FlowPainter, from_noise_loss, paint_from_noise
from mmcourse.paths import cache_dir
from mmcourse.recipes.transformer import LR
from mmcourse.studies import finished
from mmcourse.training import History, Run, train
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Segment, Vocabulary
from mmcourse.vqvae import VQVAE, vqvae_loss
from mmcourse.world.facts import FACT_WORLD, NOUNS, SCALE, Facts, Prompt, caption_of, question_of, scene
from mmcourse.world.grammar import PLACES
from mmcourse.world.scene import BACKGROUNDS, Scene

SMALL = {"width": 96, "layers": 3, "heads": 4, "context": 96}
CODES = 256                             # of the small image tokenizer
SIDE = 4                                # tokens across a picture
WARMUP = 30                             # steps
TEXT_WEIGHT = 4.0                       # of a token of an answer in words: there are few of them


# ---------------------------------------------------------------- the tokenizer, and the second judge

def every_scene() -> list[Scene]:
    """All 192 scenes of the world."""
    return [scene(noun, place, ground) for noun in NOUNS for place in PLACES for ground in BACKGROUNDS]


def moved(scenes: Sequence[Scene], rng: np.random.Generator, by: int = 4) -> list[Scene]:
    """The same scenes, each drawn up to `by` 64ths of the picture further up, down, left or right."""
    shifts = rng.integers(-by, by + 1, size=(len(scenes), 2)).tolist()
    return [Scene(s.groups, s.background, shift=tuple(shift), scale=s.scale) for s, shift in zip(scenes, shifts)]


@cache
def tokenizer(steps: int = 1500, progress: bool = False) -> VQVAE:
    """32x32 pixels <-> 4x4 tokens: trained on all the scenes there are (40 CPU seconds), then kept in the cache."""
    pictures = FACT_WORLD.draw(every_scene())
    torch.manual_seed(0)
    model = VQVAE(codebook_size=CODES, dim=16, width=64, context=1)
    return _kept("tokenizer", model, lambda rng: (pictures[rng.integers(len(pictures), size=32)],), vqvae_loss, steps,
                 Optim("muon", lr=2e-3, muon_lr=0.04), progress)


@cache
def picture_judge(steps: int = 600, progress: bool = False) -> PictureNet:
    """A small net that names what is drawn: trained on true drawings that are moved about (6 CPU seconds), then kept
    in the cache."""
    scenes = every_scene()

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        some = moved([scenes[i] for i in rng.integers(len(scenes), size=32)], rng)
        return FACT_WORLD.draw(some), *targets(some, FACT_WORLD)
    torch.manual_seed(1)
    return _kept("judge", PictureNet(32, NOUNS, tuple(BACKGROUNDS)), batch, picture_loss, steps, Optim(lr=2e-3), progress)


def _kept(what: str, model, batch: Callable, loss: Callable, steps: int, optim: Optim, progress: bool):
    """The model, trained now or, without a word, taken from the cache."""
    file = cache_dir() / "runs" / f"ch09-{what}-{FACT_WORLD.identity[:8]}-{SCALE}-{steps}.pt"
    quiet = contextlib.redirect_stdout(io.StringIO()) if file.exists() else contextlib.nullcontext()
    with locked(file.with_suffix(".wait")), quiet:                     # who comes second waits, and finds it done
        finished(train(model, batch, loss, steps=steps, optim=optim, run=Run(resume=file, progress=progress)))
    return model


@torch.no_grad()
def read_by_net(net: PictureNet, pictures: torch.Tensor) -> list[str]:
    """The second judge: the noun it sees, wherever it stands, (B, 3, 32, 32) -> B nouns."""
    left, right, _ = net(pictures)
    return [NOUNS[i] for i in torch.maximum(left, right).argmax(1).tolist()]


@cache
def _true_drawings() -> tuple[list[Scene], torch.Tensor]:
    scenes = every_scene()
    return scenes, FACT_WORLD.draw(scenes)


def read_scenes(pictures: torch.Tensor) -> list[Scene]:
    """The first judge, by analysis through synthesis: the scene whose true drawing is nearest in squared error,
    (B, 3, 32, 32) -> B scenes."""
    scenes, drawings = _true_drawings()
    nearest = torch.cdist(pictures.flatten(1), drawings.flatten(1)).argmin(1)
    return [scenes[i] for i in nearest.tolist()]


# ---------------------------------------------------------------- rows become tokens

READ = {"fact": 8, "question": 4, "property of a noun": 2, "property of a name": 2, "reverse": 2, "draw a noun": 6,
        "draw a name": 8}               # rows of each kind in a batch
GIVEN = {"fact": 0}                     # segments that are the question; of all other kinds the first, or two:
GIVEN_TWO = ("told in the prompt",)


class FactData:
    """Batches of facts, questions and pictures as ids: what `train` needs of them.

    Attributes:
        rows: how many rows of each kind (`facts.ROWS`) a batch has; 0.5: one in every other batch.
        own: pictures that a net has drawn itself, [(caption, image segment)], the rows of the kind `own picture`.
    """

    def __init__(self, facts: Facts, bpe, vqvae: VQVAE, rows: dict[str, float] | None = None):
        self.facts, self.bpe, self.vqvae = facts, bpe, vqvae
        self.rows, self.own = dict(READ if rows is None else rows), []
        self.vocabulary = Vocabulary(bpe.vocab_size, vqvae.vocab_size, audio=0, image_tokens=SIDE * SIDE)
        scenes = every_scene()
        ids = vqvae.encode(FACT_WORLD.draw(scenes)).flatten(1).tolist()        # (192, 4, 4) -> (192, 16)
        self._images = {s: Segment("image", tuple(row)) for s, row in zip(scenes, ids)}
        self._texts: dict[str, Segment] = {}

    def text(self, text: str) -> Segment:
        """A text as a segment."""
        if text not in self._texts:
            self._texts[text] = Segment("text", tuple(self.bpe.encode(" " + text)))
        return self._texts[text]

    def image(self, scene: Scene) -> Segment:
        """The true drawing of a scene as a segment."""
        return self._images[scene]

    def segments(self, kind: str, rng: np.random.Generator) -> list[Segment]:
        """One row of a kind."""
        if kind == "own picture":
            caption, image = self.own[rng.integers(len(self.own))]
            return [self.text(caption), image]
        return [self.text(part) if isinstance(part, str) else self.image(part) for part in self.facts.row(kind, rng)]

    def weighted(self, kind: str, segments: list[Segment]) -> tuple[list[int], list[float]]:
        """ids and what the loss counts each: sentences in full, of anything else the answers, and a tenth of
        what was given."""
        given = GIVEN.get(kind, 2 if kind in GIVEN_TWO else 1)
        ids, weights = [], []
        for number, segment in enumerate(segments):
            packed = self.vocabulary.pack([segment])
            weight = TEXT_WEIGHT if segment.modality == "text" and given else 1.0
            ids += packed
            weights += [GIVEN_WEIGHT["text"] if number < given else weight] * len(packed)
            if number == given:
                weights[-len(packed)] = GIVEN_WEIGHT["text"]           # that an answer opens is decided by who asks
        return ids, weights

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """ids and weights (B, T), the short rows and the long ones apart: little is padding."""
        rows = [self.weighted(kind, self.segments(kind, rng)) for kind, n in self.rows.items()
                for _ in range(int(n + rng.random()))]
        rows.sort(key=lambda row: len(row[0]))
        parts = [rows[:len(rows) // 2], rows[len(rows) // 2:]]
        return tuple(pad([row[k] for row in part], dtype) for part in parts if part
                     for k, dtype in ((0, torch.long), (1, torch.float)))


# ---------------------------------------------------------------- a net, and how it is asked

@dataclass
class Net:
    """A net that has read a `FactData`, with all that it takes to ask it."""
    model: Transformer
    data: FactData
    history: History | None = None

    def ask(self, questions: Sequence[str]) -> list[str]:
        """Each question answered in words, the likeliest ones: `a dax is what?` -> `a fish`."""
        prompts = [[self.data.text(question)] for question in questions]
        said = generate(self.model, self.data.vocabulary, prompts, "text", temperature=0.0, limit=20)
        return [self.data.bpe.decode(segment.ids).strip() for segment in said]

    def draw(self, prompts: Sequence[Sequence[str]]) -> list[Segment]:
        """A picture after one or several texts, the likeliest one token by token."""
        asked = [[self.data.text(text) for text in texts] for texts in prompts]
        return generate(self.model, self.data.vocabulary, asked, "image", temperature=0.0)

    def paint(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Image segments as pictures (B, 3, 32, 32)."""
        return self.data.vqvae.decode(torch.tensor([s.ids for s in segments]).view(-1, SIDE, SIDE))    # (B, 16)

    # the ways of drawing a name: each gives one picture a prompt, and the texts that were said on the way

    def direct(self, prompts: Sequence[Prompt]) -> tuple[list[Segment], list[str]]:
        """The caption with the name, then the picture."""
        return self.draw([[p.text] for p in prompts]), [""] * len(prompts)

    def said_first(self, prompts: Sequence[Prompt]) -> tuple[list[Segment], list[str]]:
        """Two calls: it is what? Then the caption with that answer in the place of the name."""
        names = list(dict.fromkeys(p.name for p in prompts))
        answers = dict(zip(names, self.ask([question_of(name) for name in names])))
        said = [answers[p.name] for p in prompts]
        return self.draw([[caption_of(answer, p.place, p.ground)] for p, answer in zip(prompts, said)]), said

    def chain(self, prompts: Sequence[Prompt]) -> tuple[list[Segment], list[str]]:
        """One sequence: the caption with the name, the caption again in the net's own words, the picture."""
        said = self.ask([p.text for p in prompts])
        return self.draw([[p.text, words] for p, words in zip(prompts, said)]), said

    def told_in_prompt(self, prompts: Sequence[Prompt]) -> tuple[list[Segment], list[str]]:
        """The fact stands before the caption: copying, no knowledge."""
        told = [self.data.facts.sentence(p.name) for p in prompts]
        return self.draw([[sentence, p.text] for sentence, p in zip(told, prompts)]), [""] * len(prompts)

    def noun_itself(self, prompts: Sequence[Prompt]) -> tuple[list[Segment], list[str]]:
        """The caption with the noun: the ceiling, drawing alone."""
        return self.draw([[p.told] for p in prompts]), [""] * len(prompts)


def read_facts(data: FactData, steps: int, seed: int = 0, model: Transformer | None = None, progress: bool = False,
               resume=None, until: int | None = None) -> Net:
    """Train a fresh net (or go on with `model`) on the rows of `data`; `resume` and `until` are those of `Run`."""
    model = fresh(data.vocabulary, seed) if model is None else model
    history = train(model, data.batch, mixture_loss, steps=steps, optim=Optim("muon", lr=LR, warmup=min(WARMUP, steps)),
                    run=Run(seed=seed, progress=progress, resume=resume, until=until))
    return Net(model, data, finished(history))


def fresh(vocabulary: Vocabulary, seed: int) -> Transformer:
    """A small net that has read nothing; the seed decides its first weights."""
    torch.manual_seed(seed)
    return Transformer(vocabulary.size, segment_starts=tuple(OPEN.values()), segments=4, **SMALL)


# ---------------------------------------------------------------- the same facts, painted by a flow

PROMPT = 20                             # tokens of a caption between its boundaries, at most
TEXT_KINDS = ("fact", "question", "property of a noun", "property of a name", "reverse")
FLOW_STEPS = 16                         # steps of Euler's method for a picture


class ReadPrompt(nn.Module):
    """Prompt ids (B, P) -> the vectors (B, P, C) of a text encoder that has read more than captions."""

    def __init__(self, encoder: Transformer):
        super().__init__()
        self.encoder, self.project = encoder, nn.Linear(encoder.width, encoder.width)

    def forward(self, prompts: torch.Tensor) -> torch.Tensor:
        return self.project(self.encoder.hidden(prompts))


class ReaderPainter(nn.Module):
    """A causal transformer that reads sentences, and a flow that paints latents from what it makes of a caption."""

    def __init__(self, encoder: Transformer, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = encoder
        self.painter = FlowPainter(1, 16, prompt=PROMPT, places=SIDE * SIDE, width=SMALL["width"],
                                   layers=SMALL["layers"], heads=SMALL["heads"])
        self.painter.trunk.prompt_embed = ReadPrompt(self.encoder)     # in place of a table of ids


def reader_painter_loss(model: ReaderPainter, prompts: torch.Tensor, values: torch.Tensor, *texts: torch.Tensor) -> dict:
    """What the reader does not foresee of its sentences, plus what the painter gets wrong of its pictures."""
    read, painted = mixture_loss(model.encoder, *texts)["loss"], from_noise_loss(model.painter, prompts, values)
    return {"loss": read + painted, "read": read.detach(), "painted": painted.detach()}


class FlowData:
    """The batches of a `FactData`, its pictures as latents: prompts (B, P), values (B, 16, 16), then texts."""

    def __init__(self, data: FactData):
        self.data = data
        scenes = every_scene()
        latents = data.vqvae.vectors(FACT_WORLD.draw(scenes)).detach().flatten(1, 2)       # (192, 16, 16)
        self.mean, self.std = latents.mean((0, 1)), latents.std((0, 1))
        self._latents = {s: (x - self.mean) / self.std for s, x in zip(scenes, latents)}

    def prompts(self, captions: Sequence[str]) -> torch.Tensor:
        """Captions as ids (B, P), filled up with 0."""
        rows = [self.data.vocabulary.pack([self.data.text(caption)]) for caption in captions]
        return pad([row + [0] * (PROMPT - len(row)) for row in rows])

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """Rows of every kind, as `FactData.batch`."""
        kinds = [kind for kind, n in self.data.rows.items() for _ in range(int(n + rng.random()))]
        drawn = [self.data.facts.row(kind, rng) for kind in kinds if kind not in TEXT_KINDS]
        read = [self.data.weighted(kind, self.data.segments(kind, rng)) for kind in kinds if kind in TEXT_KINDS]
        values = torch.stack([self._latents[scene] for _, scene in drawn])
        return (self.prompts([caption for caption, _ in drawn]), values, pad([ids for ids, _ in read]),
                pad([weights for _, weights in read], torch.float))

    @torch.no_grad()
    def paint(self, model: ReaderPainter, captions: Sequence[str], seed: int = 0) -> torch.Tensor:
        """Pictures of captions (B, 3, 32, 32)."""
        noise = torch.Generator().manual_seed(seed)
        values = paint_from_noise(model.painter, self.prompts(captions), FLOW_STEPS, generator=noise)
        latents = (values * self.std + self.mean).unflatten(1, (SIDE, SIDE)).permute(0, 3, 1, 2)   # (B, D, 4, 4)
        return (self.data.vqvae.decoder(latents) + 0.5).clamp(0, 1)


def painter_loss(model: ReaderPainter, prompts: torch.Tensor, values: torch.Tensor, *texts: torch.Tensor) -> dict:
    """What the painter alone gets wrong: for a reader that has read."""
    return {"loss": from_noise_loss(model.painter, prompts, values)}


def read_and_paint(data: FlowData, steps: int, seed: int = 0, frozen: bool = False,
                   progress: bool = False) -> tuple[Net, ReaderPainter]:
    """Train a reader and its flow on the same rows as `read_facts`; the `Net` answers in words alone.

    `frozen`: it reads all the sentences first, and then stays as it is while the flow learns, as the text encoders
    of diffusion models do. (In a third of the steps, three times as much in each: a batch of sentences alone would be
    small.) If not, both learn together.
    """
    reader, loss = fresh(data.data.vocabulary, seed), reader_painter_loss
    if frozen:
        kinds = {kind: 3 * n for kind, n in data.data.rows.items() if kind in TEXT_KINDS}
        texts = FactData(data.data.facts, data.data.bpe, data.data.vqvae, kinds)
        reader = read_facts(texts, max(steps // 3, 1), seed, progress=progress).model.requires_grad_(False)
        loss = painter_loss
    model = ReaderPainter(reader, seed)
    history = train(model, data.batch, loss, steps=steps, optim=Optim("muon", lr=LR, warmup=min(WARMUP, steps)),
                    run=Run(seed=seed, progress=progress))
    return Net(model.encoder, data.data, finished(history)), model
