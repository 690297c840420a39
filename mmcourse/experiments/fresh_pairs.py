"""What the nets of chapter 14 read: a caption and its picture, a word and its sound, in both orders.

Every token is counted alike, whatever was given. Scenes are drawn anew for each row, so that no row comes
twice; voices are finite, and a clip comes again when all the others have been heard.
"""
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse import checkpoints
from mmcourse.dataset import PARTS, heard_clips, image_tokens, pad, training_scenes
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import Segment, Vocabulary
from mmcourse.world.scene import Scene, caption, scene_bits
from mmcourse.world.speech import load_speech

ROWS = {"text->image": 5, "image->text": 5, "text->audio": 3, "audio->text": 3}      # of a batch
# what is predicted, and after what: `text` is a caption, `word` a single one
ROLES = {"text->image": ("text", "image | text"), "image->text": ("image", "text | image"),
         "text->audio": ("word", "audio | word"), "audio->text": ("audio", "word | audio")}
NAMES = tuple(role for both in ROLES.values() for role in both)
LEVELS = 2                              # of the codec: those that the reference model reads
ASIDE = 15                              # every 15th clip is for validation
VALIDATION_SEED, CHOICE_SEED = 1401, 1402


class Pairs:
    """Rows of two segments, each half given to the other.

    Args:
        scenes: each with its picture's tokens, a row of `pictures` (n, 64). They are used in this order, one
            a row, and none twice.
        clips: (audio tokens, word) of each clip. They are used in an order that is drawn anew when all have
            been.
    """

    def __init__(self, vocabulary: Vocabulary, bpe, scenes: Sequence[Scene], pictures: np.ndarray,
                 clips: Sequence[tuple[np.ndarray, str]], seed: int = 0):
        self.vocabulary, self.bpe, self.scenes, self.seed = vocabulary, bpe, scenes, seed
        self.pictures, self.clips = pictures, clips

    def text(self, text: str) -> Segment:
        """A text as a segment."""
        return Segment("text", tuple(self.bpe.encode(" " + text)))

    def pair(self, order: str, i: int) -> tuple[Segment, Segment]:
        """The two segments of row `i` of an order. ValueError if there is no fresh scene left."""
        if "audio" in order:
            turn, place = divmod(i, len(self.clips))
            dice = np.random.default_rng((self.seed, turn))
            tokens, word = self.clips[dice.permutation(len(self.clips))[place]]
            both = self.text(word), Segment("audio", tuple(tokens.tolist()))
        elif i >= len(self.scenes):
            raise ValueError(f"all {len(self.scenes)} scenes have been used: draw more of them")
        else:
            both = self.text(caption(self.scenes[i])), Segment("image", tuple(self.pictures[i].tolist()))
        return both if order.startswith("text") else both[::-1]

    def row(self, order: str, i: int) -> tuple[list[int], list[int]]:
        """Row `i` of an order: its ids, and what each token is, a place in `NAMES` counted from 1 (0: a
        boundary token that opens a segment; whoever asks supplies it)."""
        ids, roles = [], []
        for segment, role in zip(self.pair(order, i), ROLES[order], strict=True):
            packed = self.vocabulary.pack([segment])
            ids += packed
            roles += [0] + [1 + NAMES.index(role)] * (len(packed) - 1)
        return ids, roles

    def numbers(self, step: int) -> list[tuple[str, int]]:
        """The rows of a step: (order, row). No scene is in two steps, or in two rows of one."""
        out = []
        for other in ("image", "audio"):
            orders = [order for order, n in ROWS.items() if other in order for _ in range(n)]
            out += [(order, step * len(orders) + k) for k, order in enumerate(orders)]
        return out

    def batch(self, step: int) -> tuple[torch.Tensor, ...]:
        """ids and weights (B, T) of a step's rows, in parts of similar length: every token counts 1."""
        parts = in_parts([self.row(*number) for number in self.numbers(step)])
        return tuple(tensor for ids, roles in parts for tensor in (ids, (roles > 0).float()))

    def tokens(self, step: int) -> int:
        """How many tokens are predicted in a step."""
        return sum(sum(map(bool, self.row(*number)[1])) for number in self.numbers(step))


def in_parts(rows: list[tuple[list[int], list[int]]], size: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """ids and roles (B, T) of rows, sorted by length, `size` at a time; 0: in `PARTS` parts."""
    rows = sorted(rows, key=lambda row: len(row[0]))
    size = size or -(-len(rows) // PARTS)
    return [(pad([ids for ids, _ in part]), pad([roles for _, roles in part]))
            for part in (rows[i:i + size] for i in range(0, len(rows), size))]


@torch.no_grad()
def bits_by_role(model: Transformer, pairs: Pairs, n: int) -> dict[str, float]:
    """Bits a token of `n` rows of each order, means: for each of `NAMES`, and `all` of the mixture's tokens
    (each order by its share in `ROWS`)."""
    bits, count = torch.zeros(len(NAMES) + 1), torch.zeros(len(NAMES) + 1)
    for order in ROLES:
        for ids, roles in in_parts([pairs.row(order, i) for i in range(n)], 32):
            logits = model(ids[:, :-1]).flatten(0, 1)
            losses = F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none") / math.log(2)
            kinds = roles[:, 1:].flatten()
            bits.index_add_(0, kinds, losses)
            count.index_add_(0, kinds, torch.ones_like(losses))
    share = torch.tensor([0.0] + [ROWS[order] for order, both in ROLES.items() for _ in both])
    out = {name: float(bits[1 + i] / count[1 + i]) for i, name in enumerate(NAMES)}
    return {"all": float((bits * share).sum() / (count * share).sum()), **out}


# ---------------------------------------------------------------- what is known of the truth

def true_bits(pairs: Pairs, n: int, split: str = "train") -> dict[str, float]:
    """What the best of all predictors would need for the first `n` rows, bits a token: where it is known.

    A caption says all that a scene is, and a picture's tokens tell all of the caption: each without the
    other costs the scene's bits (`scene_bits`), and after the other nothing. A text is a caption in five
    rows of eight and a word in three, which the first tokens have to say too. How a voice sounds is not
    known, so there is no figure for sound. With `split` "any" the predictor knows all of the world but what
    is held out, which a hash decides.
    """
    texts = {order: ROWS[order] for order in ROWS if order.startswith("text")}
    extra = {order: math.log2(sum(texts.values()) / rows) for order, rows in texts.items()}
    scenes = sum(scene_bits(scene, split) for scene in pairs.scenes[:n])
    words: dict[str, int] = {}
    for _, word in pairs.clips:
        words[word] = words.get(word, 0) + 1
    said = [pairs.pair("text->audio", i)[0] for i in range(n)]
    written = {pairs.text(word).ids: -math.log2(k / len(pairs.clips)) for word, k in words.items()}
    tokens = sum(len(pairs.text(caption(scene)).ids) + 1 for scene in pairs.scenes[:n])
    return {"text": (scenes + n * extra["text->image"]) / tokens, "image | text": 0.0,
            "image": scenes / (n * (pairs.pictures.shape[1] + 1)), "text | image": 0.0,
            "word": sum(written[w.ids] + extra["text->audio"] for w in said) / sum(len(w.ids) + 1 for w in said)}


# ---------------------------------------------------------------- from the course's world

@cache
def vocabulary_and_bpe():
    """The reference model's vocabulary and text tokenizer."""
    bpe, vqvae, codec = (checkpoints.load(name) for name in ("bpe", "vqvae", "codec"))
    return Vocabulary(bpe.vocab_size, vqvae.vocab_size, codec.codebook_size, LEVELS), bpe


@cache
def spoken(limit: int | None = None) -> tuple[list, list]:
    """Clips of the voices that may be learned from, (tokens, word) each: for training, and every `ASIDE`th
    for validation."""
    corpus = load_speech(progress=False)
    kept = corpus.select(held_out=False)[:limit]
    words = [corpus.words[i] for i in kept]
    heard = heard_clips(checkpoints.load("codec"), [corpus.clips[i] for i in kept], words, LEVELS, 0, "scaling")
    clips = list(zip(heard.tokens, heard.words, strict=True))
    return [c for i, c in enumerate(clips) if i % ASIDE], clips[::ASIDE]


@cache
def _pool(n: int, seed: int) -> tuple[list[Scene], np.ndarray]:
    scenes = training_scenes(n, seed)
    key = {"jitter": 0, "unnamed": 0.0, "world": 2, **({"seed": seed} if seed else {})}
    return scenes, image_tokens(checkpoints.load("vqvae"), scenes, key)


def training_pairs(scenes: int, used: int, seed: int, limit: int | None = None) -> Pairs:
    """The rows of a run: `used` scenes of the pool of `scenes`, others for each seed. ValueError if the pool
    is too small."""
    pool, pictures = _pool(scenes, 0)
    if (seed + 1) * used > scenes:
        raise ValueError(f"seed {seed} needs scenes up to {(seed + 1) * used}, and the pool has {scenes}")
    mine = slice(seed * used, (seed + 1) * used)
    return Pairs(*vocabulary_and_bpe(), pool[mine], pictures[mine], spoken(limit)[0], seed)


def unseen_pairs(n: int, seed: int = VALIDATION_SEED, limit: int | None = None) -> Pairs:
    """Rows of scenes and clips that nothing here trains on, drawn as those of the training are."""
    return Pairs(*vocabulary_and_bpe(), *_pool(n, seed), spoken(limit)[1], seed)
