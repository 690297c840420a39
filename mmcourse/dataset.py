"""The tokenized world: scenes and speech become tokens once, are kept in the cache, and made into batches."""
import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.checks import device_of
from mmcourse.files import atomic_write
from mmcourse.paths import cache_dir
from mmcourse.transformer import Transformer, next_token_loss
from mmcourse.vocabulary import PAD, Segment, Vocabulary
from mmcourse.world.augment import augment
from mmcourse.world.edits import KINDS, Edit, sample_edit
from mmcourse.world.scene import WORLD, Scene, World

# What was given is hard to predict by nature (which noun, which letters?): it counts less than the answer.
# Pictures keep more, because guidance compares with drawing from nothing.
GIVEN_WEIGHT = {"text": 0.1, "image": 0.3, "audio": 0.1}
PARTS = 4                                               # of a batch


def training_scenes(n: int, seed: int = 0, jitter: int = 0, unnamed: float = 0.0,
                    world: World = WORLD) -> list[Scene]:
    """`n` scenes of the training split, `unnamed` of them on colours without a name.

    Scene i is the same whatever `n` is.
    """
    rng = np.random.default_rng((seed, 11))
    return [world.sample(rng, "train", jitter=jitter, unnamed=unnamed) for _ in range(n)]


def training_edits(n: int, seed: int = 0, world: World = WORLD) -> list[Edit]:
    """`n` edits of the training split; edit i is the same whatever `n` is."""
    rng = np.random.default_rng((seed, 12))
    return [sample_edit(rng, "train", world=world) for _ in range(n)]


def kept(name: str, key: dict, make):
    """An array made once: the file's name holds the hash of everything that it was made from."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_dir() / f"{name}-{digest}.npy"
    if path.exists():
        try:
            return np.load(path)
        except (OSError, ValueError, EOFError) as error:
            warnings.warn(f"{path} is damaged ({error}); it is made anew", stacklevel=3)
    array = make()
    try:
        with atomic_write(path) as draft:
            np.save(draft, array)
    except OSError as error:                            # the work is done: let it be used
        warnings.warn(f"this is made anew next time: {error}", stacklevel=3)
    return array


def image_tokens(vqvae, scenes: list[Scene], key: dict | None, progress: bool = True,
                 world: World = WORLD) -> np.ndarray:
    """The image tokens of a world's scenes: (n, tokens) int16.

    With a `key`, which says how the scenes were made, they are cached: for the shipped VQ-VAE alone.
    """
    from tqdm.auto import tqdm

    def make():
        out = []
        for i in tqdm(range(0, len(scenes), 64), desc="pictures to tokens", disable=not progress):
            pictures = world.draw(scenes[i:i + 64]).to(device_of(vqvae))
            out.append(vqvae.encode(pictures).flatten(1).cpu().numpy().astype(np.int16))
        return np.concatenate(out)
    if key is None:
        return make()
    if world != WORLD:
        key = {**key, "made of": world.identity}
    return kept("image-tokens", {"n": len(scenes), "vqvae": checkpoints.identity("vqvae"), **key}, make)


def speech_tokens(codec, sounds: list[np.ndarray], levels: int, progress: bool = True) -> list[np.ndarray]:
    """The audio tokens of each clip: a list of (frames * levels,) int16, coarse level
    first within a frame."""
    from tqdm.auto import tqdm
    frames = [codec.encode(torch.from_numpy(clip)[None].to(device_of(codec)))[0, :, :levels].cpu().numpy().astype(np.int16)
              for clip in tqdm(sounds, desc="speech to tokens", disable=not progress)]
    return [f.reshape(-1) for f in frames]  # (frames, levels) -> (frames * levels,)


class Clips:
    """Spoken words as tokens: what was said, and a way to pick one."""

    def __init__(self, tokens: list[np.ndarray], words: list[str]):
        self.tokens, self.words = tokens, words
        self.with_word: dict[str, list[int]] = {}
        for i, word in enumerate(words):
            self.with_word.setdefault(word, []).append(i)

    def pick(self, rng: np.random.Generator, word: str | None = None) -> tuple[np.ndarray, str]:
        """The tokens of a clip and its word: any clip, or one that says `word`."""
        i = int(rng.integers(len(self.tokens))) if word is None else int(rng.choice(self.with_word[word]))
        return self.tokens[i], self.words[i]


def heard_clips(codec, sounds: list[np.ndarray], words: list[str], levels: int, copies: int, name: str,
                progress: bool = True, vocal_tract: bool = False) -> Clips:
    """Clips to listen to: each as it is, and `copies` times through another throat, room and microphone, with
    `vocal_tract` through another mouth too. Cached."""
    def make():
        again = [augment(clip, np.random.default_rng((i, j, 5)), vocal_tract) for j in range(copies)
                 for i, clip in enumerate(sounds)]
        rows = speech_tokens(codec, sounds + again, levels, progress)
        return np.concatenate([np.array([len(r) for r in rows], np.int16), *rows])
    key = {"name": name, "n": len(sounds), "copies": copies, "levels": levels,
           **({"mouths": 1} if vocal_tract else {})}
    flat = kept("heard", {**key, "codec": checkpoints.identity("codec")}, make)
    n = len(sounds) * (copies + 1)
    return Clips(np.split(flat[n:], np.cumsum(flat[:n - 1].astype(int))), words * (copies + 1))


def stretch(tokens: np.ndarray, levels: int, rng: np.random.Generator, rate: float = 0.08) -> np.ndarray:
    """Another tempo, unevenly: each frame of (frames * levels,) is left out or said twice with
    probability `rate`."""
    frames = tokens.reshape(-1, levels)  # (frames * levels,) -> (frames, levels)
    times = 1 + rng.choice([-1, 0, 1], len(frames), p=[rate, 1 - 2 * rate, rate])
    return np.repeat(frames, times, axis=0).reshape(-1) if times.any() else tokens


def near_codes(codebooks: list[torch.Tensor], k: int = 4) -> np.ndarray:
    """The `k` codes that sound most like each code: (levels, codes, k)."""
    return np.stack([torch.cdist(book, book).topk(k + 1, largest=False).indices[:, 1:].cpu().numpy()
                     for book in codebooks])


def confuse_codes(tokens: np.ndarray, near: np.ndarray, rng: np.random.Generator,
                  rate: float = 0.15) -> np.ndarray:
    """Each token (of frames * levels) is one of the codes that sound like it with probability `rate`.

    A voice that was never heard falls between the codes: which of the near ones it gets is chance.
    """
    levels, _, k = near.shape
    level = np.arange(len(tokens)) % levels
    other = near[level, tokens, rng.integers(k, size=len(tokens))]
    return np.where(rng.random(len(tokens)) < rate, other, tokens).astype(tokens.dtype)


def is_kind(edit: Edit, kind: str) -> bool:
    """Whether an edit is of that kind. `long sign`: it gets a new sign of more than three letters; `noun of
    two`: one of two things is replaced and the other stays."""
    if kind == "long sign":
        return edit.kind == "sign" and len(edit.after.sign) > 3
    if kind == "noun of two":
        return edit.kind == "noun" and len(edit.after.groups) == 2
    return edit.kind == kind


def fresh_edit(rng: np.random.Generator, kind: str, world: World = WORLD) -> Edit:
    """A new edit of the training split, of that kind (`is_kind`)."""
    plain = kind.removeprefix("long ").removesuffix(" of two")
    while not is_kind(edit := sample_edit(rng, "train", plain, world), kind):
        pass
    return edit


class Mixture:
    """Batches of all directions, from data that was tokenized once. `DIRECTIONS` says how a sequence
    of each is made.

    Args:
        clips: what the model learns to say: clean speech.
        heard: what it listens to: the same and its augmented copies; None: `clips`.
        people: recordings of people, the share `people_share` of what it transcribes; None: none.
        edits: edits and the image tokens (n, 2, 64) of their pictures, before and after; None: none.
        kinds: how often each kind of edit (`is_kind`) is asked, as shares; None: as `sample_edit` makes them.
        near: of each audio code those that sound like it (`near_codes`), which are heard in its place at
            times; None: never.
        world: that of the scenes and edits.

    Attributes:
        rows: how many sequences of each direction a batch has. These, `text_weight` and `kinds` may change as
            training goes on.
        text_weight: how much a token of an answer in text counts; they are few, one word against
            64 image tokens.
    """

    def __init__(self, vocabulary: Vocabulary, bpe, scenes, images: np.ndarray, clips: Clips,
                 rows: dict[str, int], text_weight: float = 1.0, heard: Clips | None = None,
                 people: Clips | None = None, edits: tuple[list[Edit], np.ndarray] | None = None,
                 people_share: float = 0.35, kinds: dict[str, float] | None = None,
                 near: np.ndarray | None = None, world: World = WORLD):
        self.vocabulary, self.bpe, self.rows, self.text_weight = vocabulary, bpe, rows, text_weight
        self.scenes, self.images, self.clips, self.people = scenes, images, clips, people
        self.heard = clips if heard is None else heard
        self.world = world
        self.captions = [self.text(world.caption(s)) for s in scenes]
        self.edits, self.edit_images = edits if edits else ([], None)
        self.people_share, self.kinds, self.near = people_share, kinds, near
        self.of_kind = {kind: [i for i, e in enumerate(self.edits) if is_kind(e, kind)]
                        for kind in (*KINDS, "long sign", "noun of two")}

    # ---- segments

    def image(self, tokens: np.ndarray) -> Segment:
        """(64,) image tokens as a segment."""
        return Segment("image", tuple(tokens.tolist()))

    def audio(self, tokens: np.ndarray) -> Segment:
        """(frames * levels,) audio tokens as a segment."""
        return Segment("audio", tuple(tokens.tolist()))

    def text(self, text: str) -> Segment:
        """A text as a segment."""
        return Segment("text", tuple(self.bpe.encode(" " + text)))

    # ---- what is drawn at random

    def draw_scene(self, rng: np.random.Generator) -> int:
        """The number of a scene."""
        return int(rng.integers(len(self.scenes)))

    def first_noun(self, i: int) -> str:
        """What scene `i` is called aloud. ValueError if it is a sign alone."""
        if not self.scenes[i].groups:
            raise ValueError(f"{self.world.caption(self.scenes[i])!r} has nothing in it that could be named "
                             "aloud: leave the directions between sound and image out of `rows`")
        return self.scenes[i].groups[0].noun

    def spoken(self, rng: np.random.Generator, word: str | None = None) -> tuple[Segment, str]:
        """A clean clip that is to be learned, and what it says: any word, or `word`."""
        tokens, word = self.clips.pick(rng, word)
        return self.audio(tokens), word

    def overheard(self, rng: np.random.Generator, word: str | None = None) -> tuple[Segment, str]:
        """A clip to be listened to, with all that may happen to a recording, and what it says: any
        word, or `word`."""
        pool = (self.people if self.people is not None and word is None and rng.random() < self.people_share
                else self.heard)
        tokens, word = pool.pick(rng, word)
        if pool is not self.clips:
            tokens = stretch(tokens, self.vocabulary.audio_levels, rng)
            tokens = confuse_codes(tokens, self.near, rng) if self.near is not None else tokens
        return self.audio(tokens), word

    def draw_kind(self, rng: np.random.Generator) -> str:
        """A kind of edit by the shares of `kinds`."""
        shares = np.array(list(self.kinds.values()), float)
        return str(rng.choice(list(self.kinds), p=shares / shares.sum()))

    def draw_edit(self, rng: np.random.Generator) -> tuple[Edit, Segment, Segment]:
        """An edit with its pictures before and after, of a kind by the shares of `kinds`."""
        i = (int(rng.choice(self.of_kind[self.draw_kind(rng)])) if self.kinds
             else int(rng.integers(len(self.edits))))
        before, after = self.edit_images[i]
        return self.edits[i], self.image(before), self.image(after)

    # ---- sequences and batches

    def sequence(self, name: str, rng: np.random.Generator) -> list[Segment]:
        """One sequence of a direction, as its segments."""
        return DIRECTIONS[name].make(self, rng)

    def weighted(self, segments: list[Segment], given: int = 1) -> tuple[list[int], list[float]]:
        """A sequence as ids, and how much the loss counts each: the answers, and a part of the
        `given` first segments."""
        ids, weights = [], []
        for number, segment in enumerate(segments):
            packed = self.vocabulary.pack([segment])
            weight = self.text_weight if segment.modality == "text" else 1.0
            if number < given:
                weight = GIVEN_WEIGHT[segment.modality]
            ids += packed  # that an answer opens is decided by who asks
            weights += [min(weight, GIVEN_WEIGHT[segments[0].modality])] + [weight] * (len(packed) - 1)
        return ids, weights

    def row(self, name: str, rng: np.random.Generator) -> tuple[list[int], list[float]]:
        """One sequence of a direction as ids and weights."""
        return self.weighted(self.sequence(name, rng), DIRECTIONS[name].given)

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """ids and weights (B, T) of the sequences, in up to `PARTS` parts of similar length, so that
        little is padding."""
        rows = [self.row(name, rng) for name, n in self.rows.items() for _ in range(n)]
        rows.sort(key=lambda row: len(row[0]))
        size = -(-len(rows) // PARTS)
        parts = [rows[i:i + size] for i in range(0, len(rows), size)]
        return tuple(pad([row[k] for row in part], dtype) for part in parts
                     for k, dtype in ((0, torch.long), (1, torch.float)))


def mixture_loss(model: Transformer, *parts: torch.Tensor) -> dict:
    """Weighted cross-entropy in nats a token over all parts of a batch, together; `parts` are ids, weights,
    ids, weights, ..."""
    total, count = 0.0, 0.0
    for ids, weights in zip(parts[::2], parts[1::2]):
        counted = weights[:, 1:].sum()
        total, count = total + counted * next_token_loss(model, ids, weights), count + counted
    return {"loss": total / count}


def tokens_that_count(*parts: torch.Tensor) -> torch.Tensor:
    """What `mixture_loss` is the mean of: the weights of all tokens that are predicted, added up."""
    return torch.stack([weights[:, 1:].sum() for weights in parts[1::2]]).sum()


mixture_loss.mean_over = tokens_that_count


# ---------------------------------------------------------------- directions

@dataclass(frozen=True)
class Direction:
    """A kind of sequence: `make(mixture, rng)` gives its segments, of which the first `given`
    are the question."""
    name: str
    make: Callable
    given: int = 1

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those of the segments, in order."""
        return tuple(self.name.replace("+", "->").split("->"))


DIRECTIONS: dict[str, Direction] = {}
PARTIAL = 0.15          # how often a caption leaves something out, as people do


def direction(name: str):
    """Register a function as the maker of sequences of that name: modalities joined by "+"
    (given together) and "->".

    >>> DIRECTIONS["image+text->text->image"].given
    2
    """
    def add(make: Callable) -> Callable:
        DIRECTIONS[name] = Direction(name, make, given=name.count("+") + 1)
        return make
    return add


@direction("text->image")
def draw_caption(m: Mixture, rng: np.random.Generator) -> list[Segment]:
    """A caption, at times not all of it, and its picture."""
    i = m.draw_scene(rng)
    text = m.text(partial_caption(m.scenes[i], rng, m.world)) if rng.random() < PARTIAL else m.captions[i]
    return [text, m.image(m.images[i])]


@direction("image->text")
def describe_image(m: Mixture, rng: np.random.Generator) -> list[Segment]:
    """A picture and its caption."""
    i = m.draw_scene(rng)
    return [m.image(m.images[i]), m.captions[i]]


@direction("text->audio")
def speak_word(m: Mixture, rng: np.random.Generator) -> list[Segment]:
    """A word, spoken."""
    audio, word = m.spoken(rng)
    return [m.text(word), audio]


@direction("audio->text")
def write_down(m: Mixture, rng: np.random.Generator) -> list[Segment]:
    """A word that is heard, written down."""
    audio, word = m.overheard(rng)
    return [audio, m.text(word)]


@direction("audio->image")
def draw_heard(m: Mixture, rng: np.random.Generator) -> list[Segment]:
    """The first noun of a scene is heard; the scene is drawn."""
    i = m.draw_scene(rng)
    audio, _ = m.overheard(rng, m.first_noun(i))
    return [audio, m.image(m.images[i])]


@direction("audio->text->image")
def write_then_draw(m: Mixture, rng: np.random.Generator) -> list[Segment]:
    """As `draw_heard`, but what was heard is written down first."""
    i = m.draw_scene(rng)
    audio, noun = m.overheard(rng, m.first_noun(i))
    return [audio, m.text(noun), m.image(m.images[i])]


@direction("image->audio")
def name_image(m: Mixture, rng: np.random.Generator) -> list[Segment]:
    """A picture; the first noun of its scene is spoken."""
    i = m.draw_scene(rng)
    audio, _ = m.spoken(rng, m.first_noun(i))
    return [m.image(m.images[i]), audio]


@direction("image->text->audio")
def describe_then_name(m: Mixture, rng: np.random.Generator) -> list[Segment]:
    """As `name_image`, but the picture is described first."""
    i = m.draw_scene(rng)
    audio, _ = m.spoken(rng, m.first_noun(i))
    return [m.image(m.images[i]), m.captions[i], audio]


@direction("image+text->image")
def edit_image(m: Mixture, rng: np.random.Generator) -> list[Segment]:
    """A picture, an instruction, and the picture as it shall be."""
    edit, before, after = m.draw_edit(rng)
    return [before, m.text(edit.instruction), after]


@direction("image+text->text->image")
def say_then_edit(m: Mixture, rng: np.random.Generator) -> list[Segment]:
    """As `edit_image`, but a caption says first what the picture shall be."""
    edit, before, after = m.draw_edit(rng)
    return [before, m.text(edit.instruction), m.text(m.world.caption(edit.after)), after]


@direction("image+text->text")
def say_edit(m: Mixture, rng: np.random.Generator) -> list[Segment]:
    """A picture, an instruction, and the caption of what it shall be."""
    edit, before, _ = m.draw_edit(rng)
    return [before, m.text(edit.instruction), m.text(m.world.caption(edit.after))]


@direction("text+text->text")
def edit_caption(m: Mixture, rng: np.random.Generator) -> list[Segment]:
    """A caption, an instruction, and the caption as it shall be; an edit made anew if kinds are asked for."""
    edit = fresh_edit(rng, m.draw_kind(rng), m.world) if m.kinds else m.draw_edit(rng)[0]
    said = m.world.caption(edit.before), edit.instruction, m.world.caption(edit.after)
    return [m.text(text) for text in said]


def partial_caption(scene: Scene, rng: np.random.Generator, world: World = WORLD) -> str:
    """A caption that says only a part: a noun, a group, the groups, or all but the sign; or a sign alone."""
    if not scene.groups:
        return world.grammar.caption((), "", scene.sign)
    first, unsigned = scene.groups[0], world.caption(replace(scene, sign=""))
    return [first.noun, world.describe(first), world.grammar.caption(scene.groups), unsigned][rng.integers(4)]


def pad(rows: list[list], dtype=torch.long) -> torch.Tensor:
    """Sequences of unequal length -> (B, longest), filled up with PAD = 0."""
    out = torch.full((len(rows), max(map(len, rows), default=0)), PAD, dtype=dtype)
    for i, row in enumerate(rows):
        out[i, :len(row)] = torch.tensor(row, dtype=dtype)
    return out
