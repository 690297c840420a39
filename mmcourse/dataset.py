"""The tokenised world: scenes and speech turned into segments once, kept in the cache, and made into training batches."""
import hashlib
import json
from dataclasses import replace

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.paths import cache_dir
from mmcourse.vocabulary import PAD, Segment, Vocabulary
from mmcourse.world.augment import augment
from mmcourse.world.edits import KINDS, Edit, sample_edit
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Scene, caption, describe, sample_scene

# What was given is hard to predict by nature (which noun, which letters?): it counts less than the answer. Pictures keep
# more, because guidance compares with drawing from nothing.
GIVEN_WEIGHT = {"text": 0.1, "image": 0.3, "audio": 0.1}
PARTS = 4                                               # of a batch


def training_scenes(n: int, seed: int = 0, jitter: int = 0, unnamed: float = 0.0) -> list[Scene]:
    """`n` scenes of the training split, `unnamed` of them on colours without a name; scene i is the same whatever `n` is."""
    rng = np.random.default_rng((seed, 11))
    return [sample_scene(rng, "train", jitter=jitter, unnamed=unnamed) for _ in range(n)]


def training_edits(n: int, seed: int = 0) -> list[Edit]:
    """`n` edits of the training split; edit i is the same whatever `n` is."""
    rng = np.random.default_rng((seed, 12))
    return [sample_edit(rng, "train") for _ in range(n)]


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
                progress: bool = True, mouths: bool = False) -> Clips:
    """Clips to listen to: each as it is, and `copies` times through another throat, room and microphone, with `mouths` through
    another mouth too. Cached."""
    def make():
        again = [augment(clip, np.random.default_rng((i, j, 5)), mouths) for j in range(copies) for i, clip in enumerate(sounds)]
        rows = speech_tokens(codec, sounds + again, levels, progress)
        return np.concatenate([np.array([len(r) for r in rows], np.int16), *rows])
    key = {"name": name, "n": len(sounds), "copies": copies, "levels": levels, **({"mouths": 1} if mouths else {})}
    flat = _cached("heard", {**key, "codec": checkpoints.manifest()["codec"]["sha256"]}, make)
    n = len(sounds) * (copies + 1)
    return Clips(np.split(flat[n:], np.cumsum(flat[:n - 1].astype(int))), words * (copies + 1))


def stretch(tokens: np.ndarray, levels: int, rng: np.random.Generator, rate: float = 0.08) -> np.ndarray:
    """Another tempo, unevenly: each frame of (frames * levels,) is left out or said twice with probability `rate`."""
    frames = tokens.reshape(-1, levels)                                # (frames * levels,) -> (frames, levels)
    times = 1 + rng.choice([-1, 0, 1], len(frames), p=[rate, 1 - 2 * rate, rate])
    return np.repeat(frames, times, axis=0).reshape(-1) if times.any() else tokens


def near_codes(codebooks: list[torch.Tensor], k: int = 4) -> np.ndarray:
    """The `k` codes that sound most like each code: (levels, codes, k)."""
    return np.stack([torch.cdist(book, book).topk(k + 1, largest=False).indices[:, 1:].numpy() for book in codebooks])


def mishear(tokens: np.ndarray, near: np.ndarray, rng: np.random.Generator, rate: float = 0.15) -> np.ndarray:
    """Each token (of frames * levels) is one of the codes that sound like it with probability `rate`.

    A voice that was never heard falls between the codes: which of the near ones it gets is chance.
    """
    levels, _, k = near.shape
    level = np.arange(len(tokens)) % levels
    other = near[level, tokens, rng.integers(k, size=len(tokens))]
    return np.where(rng.random(len(tokens)) < rate, other, tokens).astype(tokens.dtype)


def is_kind(edit: Edit, kind: str) -> bool:
    """Whether an edit is of that kind. `long sign`: it gets a new sign of more than three letters; `noun of two`: one of two
    things is replaced and the other stays."""
    if kind == "long sign":
        return edit.kind == "sign" and len(edit.after.sign) > 3
    if kind == "noun of two":
        return edit.kind == "noun" and len(edit.after.groups) == 2
    return edit.kind == kind


def fresh_edit(rng: np.random.Generator, kind: str) -> Edit:
    """A new edit of the training split, of that kind (`is_kind`)."""
    while not is_kind(edit := sample_edit(rng, "train", kind.removeprefix("long ").removesuffix(" of two")), kind):
        pass
    return edit


class Mixture:
    """Batches of all directions. A direction is a chain such as `text->image` or `audio->text->image`: given, then answers.

    `image+text->image` is an edit: a picture, an instruction, and the picture as it shall be. `image+text->text->image` first
    says in a caption what it shall be; `image+text->text` says no more than that. `text+text->text` is an edit of the caption
    alone.

    Args:
        clips: what the model learns to say: clean speech.
        heard: what it listens to: the same and its augmented copies; None: `clips`.
        people: recordings of people, the share `people_share` of what it transcribes; None: none.
        edits: edits and the image tokens (n, 2, 64) of their pictures, before and after; None: none.
        kinds: how often each kind of edit (`is_kind`) is asked, as shares; None: as `sample_edit` makes them.
        near: of each audio code those that sound like it (`near_codes`), which are heard in its place at times; None: never.

    Attributes:
        rows: how many sequences of each direction a batch has. These, `text_weight` and `kinds` may change as training goes on.
        text_weight: how much a token of an answer in text counts; they are few, one word against 64 image tokens.
    """

    def __init__(self, vocabulary: Vocabulary, bpe, scenes, images: np.ndarray, clips: Clips, rows: dict[str, int],
                 text_weight: float = 1.0, heard: Clips | None = None, people: Clips | None = None,
                 edits: tuple[list[Edit], np.ndarray] | None = None, people_share: float = 0.35,
                 kinds: dict[str, float] | None = None, near: np.ndarray | None = None):
        self.vocabulary, self.bpe, self.rows, self.text_weight = vocabulary, bpe, rows, text_weight
        self.scenes, self.images, self.clips, self.people = scenes, images, clips, people
        self.heard = clips if heard is None else heard
        self.captions = [self.text(caption(s)) for s in scenes]
        self.edits, self.people_share, self.kinds, self.near = edits, people_share, kinds, near
        self.of_kind = {kind: [i for i, e in enumerate(edits[0] if edits else ()) if is_kind(e, kind)]
                        for kind in (*KINDS, "long sign", "noun of two")}

    def image(self, tokens: np.ndarray) -> Segment:
        return Segment("image", tuple(tokens.tolist()))

    def audio(self, tokens: np.ndarray) -> Segment:
        return Segment("audio", tuple(tokens.tolist()))

    def text(self, text: str) -> Segment:
        return Segment("text", tuple(self.bpe.encode(" " + text)))

    def speech(self, rng: np.random.Generator, given: bool, word: str | None = None) -> tuple[Segment, str]:
        """Somebody says a word: to be listened to (`given`), with all that may happen to a recording, or to be learnt."""
        if not given:
            tokens, word = self.clips.pick(rng, word)
            return self.audio(tokens), word
        pool = self.people if self.people is not None and word is None and rng.random() < self.people_share else self.heard
        tokens, word = pool.pick(rng, word)
        levels = self.vocabulary.audio_levels
        if pool is not self.clips:
            tokens = stretch(tokens, levels, rng)
            tokens = mishear(tokens, self.near, rng) if self.near is not None else tokens
        return self.audio(tokens), word

    def edit(self, rng: np.random.Generator) -> int:
        """The number of an edit, of a kind by the shares of `kinds`."""
        if not self.kinds:
            return int(rng.integers(len(self.edits[0])))
        return int(rng.choice(self.of_kind[self.kind(rng)]))

    def kind(self, rng: np.random.Generator) -> str:
        shares = np.array(list(self.kinds.values()), float)
        return str(rng.choice(list(self.kinds), p=shares / shares.sum()))

    def pair(self, direction: str, rng: np.random.Generator) -> list[Segment]:
        """One sequence of a direction, as its segments."""
        if direction == "text+text->text":
            edit = self.edits[0][self.edit(rng)] if not self.kinds else fresh_edit(rng, self.kind(rng))
            return [self.text(text) for text in (caption(edit.before), edit.instruction, caption(edit.after))]
        if direction.startswith("image+text->"):
            edits, pictures = self.edits
            i = self.edit(rng)
            said = [self.text(caption(edits[i].after))] if "->text" in direction else []
            drawn = [self.image(pictures[i, 1])] if direction.endswith("->image") else []
            return [self.image(pictures[i, 0]), self.text(edits[i].instruction), *said, *drawn]
        chain = direction.split("->")
        if set(chain) == {"text", "audio"}:
            audio, word = self.speech(rng, given=chain[0] == "audio")
            parts = {"text": self.text(word), "audio": audio}
        else:
            i = int(rng.integers(len(self.scenes)))
            parts = {"image": self.image(self.images[i]), "text": self.captions[i]}
            if "audio" in chain:                                       # the first noun of the scene is spoken
                noun = self.scenes[i].groups[0].noun
                parts["audio"] = self.speech(rng, chain[0] == "audio", noun)[0]
                if chain[0] == "audio":                                # what was heard is written down; a picture is described
                    parts["text"] = self.text(noun)
            elif chain[0] == "text" and rng.random() < 0.15:           # people leave things out
                parts["text"] = self.text(partial_caption(self.scenes[i], rng))
        return [parts[modality] for modality in chain]

    def weighted(self, segments: list[Segment], given: int = 1) -> tuple[list[int], list[float]]:
        """A sequence as ids, and how much the loss counts each: the answers, and a part of the `given` first segments."""
        ids, weights = [], []
        for number, segment in enumerate(segments):
            packed = self.vocabulary.pack([segment])
            weight = self.text_weight if segment.modality == "text" else 1.0
            if number < given:
                weight = GIVEN_WEIGHT[segment.modality]
            ids += packed                                              # that an answer opens is decided by who asks
            weights += [min(weight, GIVEN_WEIGHT[segments[0].modality])] + [weight] * (len(packed) - 1)
        return ids, weights

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """ids and weights (B, T) of the sequences, in up to `PARTS` parts of similar length, so that little is padding."""
        rows = [self.weighted(self.pair(direction, rng), given=direction.count("+") + 1)
                for direction, n in self.rows.items() for _ in range(n)]
        rows.sort(key=lambda row: len(row[0]))
        size = -(-len(rows) // PARTS)
        parts = [rows[i:i + size] for i in range(0, len(rows), size)]
        return tuple(pad([row[k] for row in part], dtype) for part in parts for k, dtype in ((0, torch.long), (1, torch.float)))


def partial_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption that says only a part: a noun, a group, the groups, or all but the sign."""
    groups = ", ".join(describe(group) for group in scene.groups)
    return [scene.groups[0].noun, describe(scene.groups[0]), groups, caption(replace(scene, sign=""))][rng.integers(4)]


def pad(rows: list[list], dtype=torch.long) -> torch.Tensor:
    """Sequences of unequal length -> (B, longest), filled up with PAD = 0."""
    out = torch.full((len(rows), max(map(len, rows), default=0)), PAD, dtype=dtype)
    for i, row in enumerate(rows):
        out[i, :len(row)] = torch.tensor(row, dtype=dtype)
    return out
