"""The judge that hears phrases: `mmcourse train phrase_listener`.

It trains on phrases of the grammar in `mmcourse.world.other_voices` alone: on no voice of the course.
"""
import numpy as np
import torch
import torch.nn.functional as F

from mmcourse import checkpoints
from mmcourse.dataset import pad
from mmcourse.judges.hearing import stack
from mmcourse.judges.phrase_listener import PhraseListener, word_errors, words_of
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.training import History, Run, train
from mmcourse.world.augment import augment
from mmcourse.world.other_voices import load_other_phrases
from mmcourse.world.phrases import load_phrases

STEPS = 5000
BATCH = 32
WIDTH = 160
LENGTHS = 8                 # a batch is one of so many parts of a random lot, by length: else two thirds of it would be padding
OPTIM = Optim(lr=3e-3, weight_decay=0.02, ema_decay=0.995)
MEASURED = 400              # phrases of each kind of voice


class PhraseBatches:
    """Phrases in the other voices less the validation voices, each with another throat, room and microphone."""

    def __init__(self, words: tuple[str, ...], batch: int = BATCH):
        corpus, self.batch = load_other_phrases(), batch
        number = {word: i for i, word in enumerate(words, 1)}
        self.pairs = [(corpus.clips[i], [number[word] for word in words_of(corpus.words[i])])
                      for i in np.flatnonzero(~corpus.held_out)]

    def __call__(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, samples) sound and (B, words) the numbers of the words, 0 where there are no more."""
        lot = sorted(rng.integers(len(self.pairs), size=LENGTHS * self.batch), key=lambda i: len(self.pairs[i][0]))
        first = self.batch * int(rng.integers(LENGTHS))
        chosen = [self.pairs[i] for i in lot[first:first + self.batch]]
        sounds = [augment(clip, rng, vocal_tract=True) for clip, _ in chosen]
        return stack(sounds, max(map(len, sounds))), pad([labels for _, labels in chosen])


def ctc(listener: PhraseListener, sound: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The CTC loss in nats a word: all ways to spread the words over the steps count."""
    found = listener(listener.features(sound)).transpose(0, 1)                          # (B, steps, words) -> (steps, B, words)
    steps = torch.full((len(labels),), len(found), device=found.device)
    return F.ctc_loss(found, labels, steps, (labels > 0).sum(1), zero_infinity=True)


def measure(listener: PhraseListener) -> dict:
    """Share of words heard wrong (WER) in voices of its own kind that it never heard, in voices that the model imitates, and in
    these after the trip through two levels of the codec: the ceiling of what a model says."""
    own, course = load_other_phrases(), load_phrases("train")
    codec = checkpoints.load("codec")
    theirs = [course.clips[i] for i in range(MEASURED)]
    coded = [codec.decode(codec.encode(torch.from_numpy(clip)[None])[..., :2])[0].numpy() for clip in theirs]
    kept = np.flatnonzero(own.held_out)[:MEASURED]
    return {"wer_validation_voices": error_rate(listener, [own.clips[i] for i in kept], [own.words[i] for i in kept]),
            "wer_course_voices": error_rate(listener, theirs, course.texts[:MEASURED]),
            "wer_course_voices_coded": error_rate(listener, coded, course.texts[:MEASURED])}


def error_rate(listener: PhraseListener, clips: list, texts: list[str]) -> float:
    """Words wrong, of all that were said."""
    wrong, said = map(sum, zip(*(word_errors(heard, text) for heard, text in zip(listener.hear(clips), texts, strict=True))))
    return round(wrong / said, 4)


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train, measure, save."""
    args = options("phrase_listener", argv, STEPS)
    torch.manual_seed(args.seed)
    listener = PhraseListener(sorted({word for text in load_other_phrases().words for word in words_of(text)}), WIDTH)
    run = begin(run_file("phrase_listener", seed=args.seed, steps=args.steps), args)
    history = finished(train(listener, PhraseBatches(listener.words), ctc, steps=args.steps, optim=OPTIM,
                             run=Run(seed=args.seed, resume=run)))
    ship("phrase_listener", listener, history, args, run, measure(listener), folder, dtype=torch.float16)
    return history
