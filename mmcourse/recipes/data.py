"""The tokenised world: scenes and speech turned into segments once, kept in the cache, and made into training batches."""
import hashlib
import json

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.paths import cache_dir
from mmcourse.vocabulary import PAD, Segment, Vocabulary
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Scene, caption, describe, sample_scene

# What was given is hard to predict by nature (which noun, which letters?): it counts less than the answer. Pictures keep
# more, because guidance compares with drawing from nothing.
GIVEN_WEIGHT = {"text": 0.1, "image": 0.3, "audio": 0.1}


def training_scenes(n: int, seed: int = 0, jitter: int = 0) -> list[Scene]:
    """`n` scenes of the training split; scene i is the same whatever `n` is."""
    rng = np.random.default_rng((seed, 11))
    return [sample_scene(rng, "train", jitter=jitter) for _ in range(n)]


def _cached(name: str, key: dict, make):
    """An array made once: the file's name holds the hash of everything that it was made from."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_dir() / f"{name}-{digest}.npy"
    if not path.exists():
        array = make()
        temporary = path.with_suffix(".part.npy")
        np.save(temporary, array)
        temporary.replace(path)
    return np.load(path)


def image_tokens(vqvae, scenes: list[Scene], key: dict, progress: bool = True) -> np.ndarray:
    """The image tokens of scenes: (n, 64) int16, cached under `key`."""
    from tqdm.auto import tqdm

    def make():
        out = []
        for i in tqdm(range(0, len(scenes), 64), desc="pictures to tokens", disable=not progress):
            out.append(vqvae.encode(draw_batch(scenes[i:i + 64])).flatten(1).numpy().astype(np.int16))
        return np.concatenate(out)
    return _cached("image-tokens", {"n": len(scenes), "vqvae": checkpoints.manifest()["vqvae"]["sha256"], **key}, make)


def speech_tokens(codec, sounds: list[np.ndarray], levels: int, progress: bool = True) -> list[np.ndarray]:
    """The audio tokens of each clip: a list of (frames * levels,) int16, coarse level first within a frame."""
    from tqdm.auto import tqdm
    frames = [codec.encode(torch.from_numpy(clip)[None])[0, :, :levels].numpy().astype(np.int16)
              for clip in tqdm(sounds, desc="speech to tokens", disable=not progress)]
    return [f.reshape(-1) for f in frames]                             # (frames, levels) -> (frames * levels,)


class Mixture:
    """Batches of all directions. Each direction is a pair of segments: what is given, then the answer.

    Attributes:
        rows: how many sequences of each direction a batch has.
        text_weight: how much a token of an answer in text counts; they are few, one word against 64 image tokens.
    """

    def __init__(self, vocabulary: Vocabulary, bpe, scenes, images: np.ndarray, clips: list[np.ndarray], words: list[str],
                 rows: dict[str, int], text_weight: float = 1.0):
        self.vocabulary, self.bpe, self.rows, self.text_weight = vocabulary, bpe, rows, text_weight
        self.scenes, self.images, self.clips, self.words = scenes, images, clips, words
        self.captions = [self.text(caption(s)) for s in scenes]
        self.with_word: dict[str, list[int]] = {}
        for i, word in enumerate(words):
            self.with_word.setdefault(word, []).append(i)

    def image(self, i: int) -> Segment:
        return Segment("image", tuple(self.images[i].tolist()))

    def audio(self, i: int) -> Segment:
        return Segment("audio", tuple(self.clips[i].tolist()))

    def text(self, text: str) -> Segment:
        return Segment("text", tuple(self.bpe.encode(" " + text)))

    def pair(self, direction: str, rng: np.random.Generator) -> list[Segment]:
        """One sequence of a direction such as `text->image`, as its segments."""
        given, _, answer = direction.partition("->")
        if {given, answer} == {"text", "image"}:
            i = int(rng.integers(len(self.scenes)))
            parts = {"text": self.captions[i], "image": self.image(i)}
            if given == "text" and rng.random() < 0.15:                # people leave things out
                parts["text"] = self.text(partial_caption(self.scenes[i], rng))
        elif {given, answer} == {"text", "audio"}:
            i = int(rng.integers(len(self.clips)))
            parts = {"text": self.text(self.words[i]), "audio": self.audio(i)}
        else:                                                          # the first noun of the scene is spoken
            i = int(rng.integers(len(self.scenes)))
            spoken = self.with_word[self.scenes[i].groups[0].noun]
            parts = {"image": self.image(i), "audio": self.audio(spoken[rng.integers(len(spoken))])}
        return [parts[given], parts[answer]]

    def weighted(self, segments: list[Segment]) -> tuple[list[int], list[float]]:
        """A pair as ids, and how much the loss counts each: the answer, and a part of what was given."""
        given, answer = (self.vocabulary.pack([segment]) for segment in segments)
        weight = self.text_weight if segments[1].modality == "text" else 1.0
        return given + answer, [GIVEN_WEIGHT[segments[0].modality]] * (len(given) + 1) + [weight] * (len(answer) - 1)

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """ids and weights of the sequences with a picture, then of the short ones without (less padding so)."""
        long, short = [], []
        for direction, n in self.rows.items():
            for _ in range(n):
                (long if "image" in direction else short).append(self.weighted(self.pair(direction, rng)))
        return tuple(pad([row[k] for row in rows], dtype) for rows in (long, short)
                     for k, dtype in ((0, torch.long), (1, torch.float)))


def partial_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption that says only a part: a noun, a group, the groups, or all but the sign."""
    groups = ", ".join(describe(group) for group in scene.groups)
    return [scene.groups[0].noun, describe(scene.groups[0]), groups, f"{groups}, {scene.ground} ground"][rng.integers(4)]


def pad(rows: list[list], dtype=torch.long) -> torch.Tensor:
    """Sequences of unequal length -> (B, longest), filled up with PAD = 0."""
    out = torch.full((len(rows), max(map(len, rows), default=0)), PAD, dtype=dtype)
    for i, row in enumerate(rows):
        out[i, :len(row)] = torch.tensor(row, dtype=dtype)
    return out
