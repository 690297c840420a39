"""The judge that hears words: `mmcourse train word_judge`, about 3 CPU minutes.

It trains on true speech of the training voices and, where the recordings are there, on three people's digits (a tenth
of the draws).
"""
import numpy as np
import torch
import torch.nn.functional as F

from mmcourse.judges.hearing import LENGTH, WordJudge, WordListener
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.training import History, Run, train
from mmcourse.world.augment import change_speed
from mmcourse.world.human_digits import load_human_digits
from mmcourse.world.scene import WORDS
from mmcourse.world.speech import load_speech

STEPS = 1500
BATCH = 48
LR = 2e-3
WEIGHT_DECAY = 0.05


class WordBatches:
    """Spoken words with their labels: shifted, faster or slower, noisy."""

    def __init__(self, batch: int = BATCH, humans: bool = True):
        corpus, self.batch = load_speech(), batch
        self.pairs = [(corpus.clips[i], WORDS.index(corpus.words[i])) for i in corpus.select()]
        digits = load_human_digits() if humans else None
        self.human = [(c, WORDS.index(w)) for c, w, out in zip(digits.clips, digits.words, digits.held_out)
                      if not out] if digits else []

    def __call__(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 8320) sound and (B,) the index of the word."""
        sound, labels = np.zeros((self.batch, LENGTH), np.float32), np.zeros(self.batch, np.int64)
        for b in range(self.batch):
            pool = self.human if self.human and rng.random() < 0.1 else self.pairs
            clip, labels[b] = pool[rng.integers(len(pool))]
            if rng.random() < 0.7:
                clip = change_speed(clip, rng.uniform(0.85, 1.18))
            start = int(rng.integers(max(1, min(2400, LENGTH - len(clip)))))
            sound[b, start:start + len(clip)] = clip[:LENGTH - start]
            if rng.random() < 0.5:
                sound[b] += rng.normal(0, 10 ** rng.uniform(-5, -1.7), LENGTH)
        return torch.from_numpy(sound), torch.from_numpy(labels)


def word_loss(judge: WordListener, sound: torch.Tensor, labels: torch.Tensor) -> dict:
    """Cross-entropy on spectrograms, blurred and partly covered at random: no single detail may decide."""
    x = judge.features(sound)
    if torch.rand(()) < 0.5:
        wide, high = (2 * int(torch.randint(0, 3, ())) + 1 for _ in range(2))
        x = F.avg_pool2d(x, (high, wide), 1, (high // 2, wide // 2), count_include_pad=False)
    B, bands, frames = x.shape
    for axis, size, most in ((1, bands, 10), (2, frames, 12)):
        at, width = torch.randint(0, size, (B, 1)), torch.randint(0, most, (B, 1))
        place = torch.arange(size)[None]
        hidden = ((place >= at) & (place < at + width)).to(x.device)                    # (B, size)
        x = x.masked_fill(hidden[:, :, None] if axis == 1 else hidden[:, None, :], -1.1)
    logits = judge(x)
    return {"loss": F.cross_entropy(logits, labels, label_smoothing=0.05),
            "accuracy": (logits.argmax(1) == labels).float().mean().item()}


def train_word_judge(steps: int | None = None, resume=None, *, seed: int = 0, progress: bool = True,
                     humans: bool = True) -> tuple[WordJudge, History]:
    """Train a judge; one step takes about 0.1 s a core."""
    torch.manual_seed(seed)
    judge = WordJudge()
    history = train(judge, WordBatches(humans=humans), word_loss, steps=steps or STEPS,
                    optim=Optim(lr=LR, weight_decay=WEIGHT_DECAY),
                    run=Run(seed=seed, resume=resume, progress=progress))
    return judge, history


def measure(judge: WordJudge) -> dict:
    """Accuracy on every clip of the held-out voices, and on the human digits that nothing trains on."""
    corpus = load_speech()
    chosen = corpus.select(held_out=True)
    result = {"held_out_voices": round(judge.accuracy([corpus.clips[i] for i in chosen],
                                                      [corpus.words[i] for i in chosen]), 4)}
    if (digits := load_human_digits()) is not None:
        kept = [i for i in range(len(digits.clips)) if digits.held_out[i]]
        clips, words = [digits.clips[i] for i in kept], [digits.words[i] for i in kept]
        result["human_digits"] = round(judge.accuracy(clips, words), 4)
    return result


def main(argv: list[str] | None = None, folder=None) -> WordJudge:
    """Train, measure, save."""
    args = options("word_judge", argv, STEPS)
    people = load_human_digits() is not None
    run = begin(run_file("word_judge", seed=args.seed, steps=args.steps, people=people), args)
    judge, history = train_word_judge(args.steps, run, seed=args.seed)
    finished(history)
    ship("word_judge", judge, history, args, run, measure(judge), folder)
    return judge
