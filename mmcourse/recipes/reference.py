"""The reference model: one transformer for all six directions. `python -m mmcourse train reference`, about 100 CPU minutes."""
import torch

from mmcourse import checkpoints
from mmcourse.bpe import BPETokenizer
from mmcourse.paths import CHECKPOINTS, cache_dir
from mmcourse.recipes.data import Mixture, image_tokens, speech_tokens, training_scenes
from mmcourse.training import History, train
from mmcourse.transformer import Transformer, next_token_loss
from mmcourse.vocabulary import OPEN, Vocabulary
from mmcourse.world.speech import load_speech

STEPS, SCENES, CONTEXT = 6600, 60_000, 256
PICTURES_FIRST = 1000                                   # so many steps without speech: drawing is by far the slowest to learn
AUDIO_CODES, AUDIO_LEVELS = 512, 2                      # the transformer models the two coarsest levels of the codec
LR, MUON_LR, WARMUP = 3e-3, 0.02, 100
# How many sequences of each direction stand in a batch.
ROWS = {"text->image": 12, "image->text": 3, "audio->image": 3, "image->audio": 3, "text->audio": 5, "audio->text": 5}


def make_model(vocabulary: Vocabulary, seed: int = 0, width: int = 192, layers: int = 6, heads: int = 6) -> Transformer:
    """A fresh transformer over the vocabulary; the seed decides its first weights."""
    torch.manual_seed(seed)
    return Transformer(vocabulary.size, width=width, layers=layers, heads=heads, context=CONTEXT,
                       openers=tuple(OPEN.values()))


def mixture_loss(model: Transformer, long, long_weights, short, short_weights) -> dict:
    """Weighted cross-entropy in nats a token over both parts of a batch, together; logs each part too."""
    a = next_token_loss(model, long, long_weights)
    if not len(short):
        return {"loss": a, "with_picture": a}
    b = next_token_loss(model, short, short_weights)
    n_long, n_short = long_weights.sum(), short_weights.sum()
    return {"loss": (n_long * a + n_short * b) / (n_long + n_short), "with_picture": a, "speech_text": b}


def make_mixture(scenes: int = SCENES, progress: bool = True, jitter: int = 0, rows: dict | None = None,
                 speech: bool = True) -> Mixture:
    """The training data of the reference model, from the shipped tokenizers; tokenised once and cached."""
    rows = rows or {k: v for k, v in ROWS.items() if speech or "audio" not in k}
    bpe = BPETokenizer.load(CHECKPOINTS / "bpe.json")
    vqvae = checkpoints.load("vqvae")
    vocabulary = Vocabulary(bpe.vocab_size, vqvae.vocab_size, AUDIO_CODES, AUDIO_LEVELS)
    data = training_scenes(scenes, jitter=jitter)
    images = image_tokens(vqvae, data, {"jitter": jitter, "world": 1}, progress)
    if not speech:
        return Mixture(vocabulary, bpe, data, images, [], [], rows)
    codec = checkpoints.load("codec")
    if codec.codebook_size != AUDIO_CODES:
        raise ValueError(f"the codec has {codec.codebook_size} codes a level, the reference model was laid out for {AUDIO_CODES}")
    corpus = load_speech(progress=progress)
    kept = corpus.select(held_out=False)
    clips = speech_tokens(codec, [corpus.clips[i] for i in kept], AUDIO_LEVELS, progress)
    return Mixture(vocabulary, bpe, data, images, clips, [corpus.words[i] for i in kept], rows)


def main(argv: list[str] | None = None) -> History:
    """Train (or go on training) the reference transformer and ship it."""
    from mmcourse.recipes import options
    args = options("reference", argv, steps=STEPS)
    settings = {"steps": args.steps, "lr": LR, "optimizer": "muon", "muon_lr": MUON_LR, "warmup": WARMUP, "seed": args.seed,
                "resume": cache_dir() / "runs" / "reference.pt", "save_every": 100}
    mixture = make_mixture(speech=False)
    model = make_model(mixture.vocabulary, args.seed)
    history = train(model, mixture.batch, mixture_loss, until=PICTURES_FIRST, **settings)
    if not history.interrupted:
        mixture = make_mixture()
        history = train(model, mixture.batch, mixture_loss, **settings)
    if not history.interrupted:
        ship(model, mixture.vocabulary, args.seed, args.steps, history)
    return history


def ship(model: Transformer, vocabulary: Vocabulary, seed: int, steps: int, history: History) -> None:
    """Save the transformer as the shipped one, with the vocabulary and the hashes of the tokenizers it was trained on."""
    tail = history.rows[-20:]
    metrics = {k: round(sum(r[k] for r in tail) / len(tail), 4) for k in ("loss", "with_picture", "speech_text")}
    tokenizers = {name: checkpoints.manifest()[name]["sha256"] for name in ("bpe", "vqvae", "codec")}
    checkpoints.save("transformer", model, seed=seed, steps=steps, cpu_minutes=history.cpu_minutes, metrics=metrics,
                     vocabulary=vocabulary.config, tokenizers=tokenizers)
    print(metrics)
