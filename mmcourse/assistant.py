"""All of it together: text, picture or sound in; text, picture or sound out.

>>> import mmcourse as mm
>>> a = mm.load("reference")                                                    # doctest: +SKIP
>>> a.generate([mm.Text("two cats on the left, blue ground")], want="image")    # doctest: +SKIP
"""
import secrets
from dataclasses import replace

import numpy as np
import torch

from mmcourse import checkpoints, rerank
from mmcourse.chat import Chat
from mmcourse.checks import check_seed, device_of, whole
from mmcourse.media import Audio, Image, Text
from mmcourse.paths import CHECKPOINTS
from mmcourse.vocabulary import MODALITIES, Segment, Vocabulary
from mmcourse.world.augment import change_speed
from mmcourse.world.prompts import read_prompt, read_word
from mmcourse.world.scene import WORLD, World

TEMPOS = (1.0, 0.8, 0.87, 0.93, 1.07, 1.15, 1.25)       # a sound is put into words after it was heard at each of these
DECODERS = {"vq": None, "diffusion": "decoder", "diffusion128": "decoder128"}      # who paints a picture: its checkpoint
ONE_TRY = {"best_of": 1, "temperature": 0.0, "guidance": 1.0}           # the likeliest answer: enough for a model that practised
STEPS = 2                                               # of the diffusion decoders: chapter 07 measures that more gain nothing


def painted(vqvae, segments) -> torch.Tensor:
    """Image segments as the tokenizer's own decoder paints them, (n, 3, 64, 64): the answer itself, no decoder's skill."""
    return vqvae.decode(torch.tensor([s.ids for s in segments]).view(-1, 8, 8)).cpu()    # (n, 64) -> (n, 8, 8)


def sounded(codec, segments, levels: int = 2) -> list[np.ndarray]:
    """Audio segments as sounds (samples,), those of one length together."""
    out: list = [None] * len(segments)
    for length in {len(s.ids) for s in segments}:
        rows = [i for i, s in enumerate(segments) if len(s.ids) == length]
        ids = torch.tensor([segments[i].ids for i in rows]).view(len(rows), -1, levels)      # (n, frames, levels)
        for i, samples in zip(rows, codec.decode(ids).cpu().numpy(), strict=True):
            out[i] = samples
    return out


class Assistant:
    """Any modality in, any modality out: `bpe`, `vqvae`, `codec`, `transformer`, their `vocabulary`, and diffusion decoders
    for pictures of 64x64 (`decoder`) and 128x128 (`decoder128`). `drafter` guesses pictures, so that they are painted sooner
    (chapter 12). `world` is the one whose captions it learned; `sampling` holds for all its answers in place of that of
    `rerank.PRESETS`, and then it looks and listens once. `converses`: whether the transformer has learned to (`chat`)."""

    def __init__(self, bpe, vqvae, codec, transformer, vocabulary: Vocabulary, decoder=None, decoder128=None,
                 world: World = WORLD, sampling: dict | None = None, converses: bool = False, drafter=None):
        self.bpe, self.vqvae, self.codec, self.transformer = bpe, vqvae, codec, transformer
        self.vocabulary, self.decoder, self.decoder128, self.world = vocabulary, decoder, decoder128, world
        self.sampling, self.converses, self.drafter = {} if sampling is None else sampling, converses, drafter

    def read(self, parts, want: str) -> tuple[list, tuple[str, ...]]:
        """A prompt with its texts as the world writes them, and a sentence for each thing that was not understood.

        A text that is in the grammar stays as it is. To be spoken, a text becomes one word.
        """
        parts = [parts] if isinstance(parts, (str, Text, Image, Audio)) else list(parts)
        reader, out, remarks = read_word if want == "audio" and len(parts) == 1 else read_prompt, [], []
        for part in parts:
            part = Text(part) if isinstance(part, str) else part
            if isinstance(part, Text):
                text, said = reader(part.text, self.world)
                part, remarks = replace(part, text=text), [*remarks, *said]
            out.append(part)
        return out, tuple(dict.fromkeys(remarks))

    def segment(self, part) -> Segment:
        """The tokens of one part of a prompt."""
        if isinstance(part, str):
            part = Text(part)
        if isinstance(part, Text):
            return Segment("text", tuple(self.bpe.encode(" " + read_prompt(part.text, self.world)[0])))
        if isinstance(part, Image):
            return Segment("image", tuple(self.vqvae.encode(part.square().to(device_of(self.vqvae))).flatten().tolist()))
        if isinstance(part, Audio):
            return self.sound_segment(part.speech(self.codec.sample_rate))
        raise TypeError(f"a prompt is made of mm.Text, mm.Image and mm.Audio, got {type(part).__name__}")

    def sound_segment(self, samples: np.ndarray) -> Segment:
        """The tokens of samples (n,) at the codec's rate, of the levels that the transformer models."""
        sound = torch.from_numpy(np.asarray(samples, np.float32))[None].to(device_of(self.codec))
        ids = self.codec.encode(sound)[0, :, :self.vocabulary.audio_levels]
        return Segment("audio", tuple(ids.flatten().tolist()))         # (frames, levels) -> frame after frame

    def augmented_views(self, samples: np.ndarray) -> list[list[Segment]]:
        """Prompts: the same at several tempos (`TEMPOS`), as it is first. What is listened to before anything is written down."""
        return [[self.sound_segment(samples if tempo == 1 else change_speed(samples, tempo))] for tempo in TEMPOS]

    def render(self, segment: Segment, decoder: str | None = None, steps: int = STEPS, seed: int = 0):
        """The thing that a segment stands for: Text, Image or Audio. Arguments as for `pixels`."""
        if segment.modality == "text":
            return Text(self.bpe.decode(segment.ids).strip() or "...")
        if segment.modality == "image":
            ids = torch.tensor(segment.ids).view(1, 8, 8)              # (64,) -> (1, 8, 8)
            return Image(self.pixels(ids, decoder, steps, seed)[0].permute(1, 2, 0).cpu())
        frames = torch.tensor(segment.ids).view(1, -1, self.vocabulary.audio_levels)      # (1, frames, levels)
        return Audio(self.codec.decode(frames)[0].clamp(-1, 1).cpu(), self.codec.sample_rate)

    def pixels(self, ids: torch.Tensor, decoder: str | None = None, steps: int = STEPS, seed: int = 0) -> torch.Tensor:
        """Image tokens (B, 8, 8) -> pictures (B, 3, 64, 64), or (B, 3, 128, 128) by `diffusion128`.

        Args:
            decoder: `vq`, the tokenizer's own, `diffusion` or `diffusion128`; by default `diffusion` if there is one.
            steps: of a diffusion decoder.
        """
        painter = self._painter(decoder)
        return self.vqvae.decode(ids) if painter is None else painter.decode(ids, self.vqvae, steps=steps, seed=self.seed(seed))

    def _painter(self, decoder: str | None):
        """The diffusion decoder of that name; None: the tokenizer's own."""
        if decoder is None:
            return self.decoder
        if decoder not in DECODERS:
            raise ValueError(f"decoder is {', '.join(map(repr, DECODERS))}, got {decoder!r}")
        name = DECODERS[decoder]
        painter = getattr(self, name) if name else None
        if name and painter is None:
            raise ValueError(f"this model has no {decoder} decoder: `python -m mmcourse train {name}` makes one")
        return painter

    def generate(self, parts, want: str, seed: int = 0, *, decoder: str | None = None, think: bool | None = None, **sampling):
        """Answer a prompt.

        Args:
            parts: a list of Text, Image and Audio. A picture and an instruction, such as `make the ground green`, are an edit.
            want: `text`, `image` or `audio`.
            seed: a whole number; None: another answer each time.
            decoder: who paints a picture from its tokens: `vq`, `diffusion` (the default) or `diffusion128`.
            think: whether the model first says in words what it means to draw or speak, and goes on from there; by default
                where `rerank.PRESETS` says so: from sound to picture, from picture to sound, and in edits.
            sampling: temperature, top_k, top_p, guidance, best_of; by default those of `rerank.PRESETS`. A sound that is put
                into words is heard at several tempos (`augmented_views`), unless sampling says how to write it down.

        Returns:
            the answer; what was not understood of the question is printed and stands in the answer's `remarks`.
        """
        self._painter(decoder)                                         # a wrong name is refused before the model runs
        seed = self.seed(seed)
        parts, remarks = self.read(parts, want)
        answer = self.render(self.tokens(parts, want, seed, think=think, **sampling), decoder=decoder, seed=seed)
        object.__setattr__(answer, "remarks", remarks)                 # a Text is frozen
        for remark in remarks:
            print(remark)
        return answer

    def chat(self) -> Chat:
        """A new conversation with the model. ValueError if it has not learned to converse."""
        if not self.converses:
            raise ValueError("this model answers single questions (.generate) and has not learned to converse: the one that has "
                             "is mm.load('chat')")
        return Chat(self)

    @staticmethod
    def seed(seed) -> int:
        """A seed of any kind as an int; None: one that nobody knows."""
        check_seed(seed)
        return secrets.randbits(31) if seed is None else whole(seed)

    def tokens(self, parts, want: str, seed: int | None = 0, think: bool | None = None, **sampling) -> Segment:
        """The answer as the transformer gives it: tokens, not yet rendered. Arguments as for `generate`."""
        prompt, views = self._question(parts, want, think, sampling)
        return rerank.answer(self.transformer, self.vocabulary, [prompt], want, say_first=think, views=views,
                             seed=self.seed(seed), **{"drafter": self.drafter, **self.sampling, **sampling})[0]

    def _question(self, parts, want: str, think: bool | None, sampling: dict) -> tuple[list[Segment], list | None]:
        """A prompt as segments, and the same sound at several tempos if it shall be put into words; [] if once is enough."""
        if want not in MODALITIES:
            raise ValueError(f"want is one of {MODALITIES}, got {want!r}")
        parts, _ = self.read(parts, want)
        if not parts:
            raise ValueError("the prompt is empty: give at least one Text, Image or Audio")
        listens = not sampling if want == "text" else want == "image" and think is not False
        if listens and not self.sampling and len(parts) == 1 and isinstance(parts[0], Audio):
            views = [self.augmented_views(parts[0].speech(self.codec.sample_rate))]
            return views[0][0], views
        return [self.segment(part) for part in parts], [] if self.sampling else None


TRANSFORMERS = {"reference": "transformer", "chat": "chat"}             # the models: the checkpoint of each one's transformer


def load(name: str = "reference", folder=CHECKPOINTS) -> Assistant:
    """An any-to-any model: every file checked against the manifest, offline.

    Args:
        name: `reference`, the pre-trained model, which the chapters measure, or `chat`, the same after it learned to converse and
            practised. Both answer single questions with care (`rerank.PRESETS`), and about equally well, edits aside (chapter 11
            has the figures); in a conversation (`chat`) the answer is the likeliest one, in one try.
    """
    if name not in TRANSFORMERS:
        raise ValueError(f"the models are {' and '.join(map(repr, TRANSFORMERS))}; got {name!r}. Single parts: "
                         "mmcourse.checkpoints.load(name)")
    part = TRANSFORMERS[name]
    _, entry = checkpoints.verify(part, folder)
    entries = checkpoints.manifest(folder)
    helpers = {name: checkpoints.load(name, folder) if name in entries else None
               for name in ("decoder", "decoder128", "drafter")}
    transformer = checkpoints.load(part, folder)                       # refused if it learned from other tokenizers
    vocabulary = Vocabulary(**entry.get("vocabulary", {"text": 0}))
    if transformer.vocab_size != vocabulary.size or "tokenizers" not in entry:
        raise ValueError(f"the manifest in {folder} contradicts itself: the transformer has {transformer.vocab_size} ids, its "
                         f"vocabulary {vocabulary.size}, its tokenizers {len(entry.get('tokenizers', ()))}: restore it with git")
    tokenizers = [checkpoints.load(part, folder) for part in ("bpe", "vqvae", "codec")]
    return Assistant(*tokenizers, transformer, vocabulary, **helpers, converses=name == "chat")
