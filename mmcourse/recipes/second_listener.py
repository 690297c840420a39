"""The second judge that hears words: `python -m mmcourse train second_listener`.

It trains on `mmcourse.world.other_voices` alone: on no voice of the course, and on no human.
"""
import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.codec import CLIP_SAMPLES
from mmcourse.judges.hearing import stack, through_codec
from mmcourse.judges.second_listener import SecondListener
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.recipes.word_judge import word_loss
from mmcourse.training import History, Run, train
from mmcourse.world.augment import augment
from mmcourse.world.other_voices import load_other_voices
from mmcourse.world.scene import WORDS
from mmcourse.world.speech import SpeechCorpus, load_speech

STEPS = 3000
BATCH = 48
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.05
EMA_DECAY = 0.995              # the weights that are kept are a mean over some 200 steps
CODEC_LEVELS = 2             # what the transformer speaks
WORDS_PER_VOICE = 42         # of each training voice, through the codec: Griffin-Lim takes its time


class OtherVoiceBatches:
    """Words in the other voices less the validation voices, each with another throat, room and microphone."""

    def __init__(self, batch: int = BATCH):
        corpus, self.batch = load_other_voices(), batch
        self.pairs = [(corpus.clips[i], WORDS.index(corpus.words[i])) for i in corpus.select()]

    def __call__(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 8320) sound and (B,) the index of the word."""
        chosen = [self.pairs[i] for i in rng.integers(len(self.pairs), size=self.batch)]
        return (stack([augment(clip, rng, vocal_tract=True) for clip, _ in chosen]),
                torch.tensor([label for _, label in chosen]))


def train_second_listener(steps: int | None = None, resume=None, *, seed: int = 0,
                          progress: bool = True) -> tuple[SecondListener, History]:
    """Train a listener; one step takes about 0.2 s on one core."""
    torch.manual_seed(seed)
    listener = SecondListener()
    history = train(listener, OtherVoiceBatches(), word_loss, steps=steps or STEPS,
                    optim=Optim(lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, ema_decay=EMA_DECAY),
                    run=Run(seed=seed, resume=resume, progress=progress))
    return listener, history


def measure(listener, codec) -> dict:
    """Accuracy on true clips, and on the same clips after two levels of the codec ("coded").

    `training_voices_coded` is the ceiling for what a model speaks: these are the clips that it imitates.
    """
    course = load_speech()
    rng = np.random.default_rng(0)
    voices = sorted({course.voices[i] for i in course.select()})
    training = np.concatenate([rng.choice(course.select(voice=voice), WORDS_PER_VOICE, replace=False)
                               for voice in voices])
    held_out = course.select(held_out=True)
    other = load_other_voices()

    def accuracy(corpus: SpeechCorpus, chosen, coded: bool = False) -> float:
        sound = stack([corpus.clips[i] for i in chosen], CLIP_SAMPLES)
        if coded:
            sound = through_codec(codec, sound, (CODEC_LEVELS,))[CODEC_LEVELS]
        return round(listener.accuracy(sound, [corpus.words[i] for i in chosen]), 4)

    return {"validation_voices": accuracy(other, other.select(held_out=True)),
            "held_out_voices": accuracy(course, held_out),
            "held_out_voices_coded": accuracy(course, held_out, coded=True),
            "training_voices": accuracy(course, training),
            "training_voices_coded": accuracy(course, training, coded=True)}


def main(argv: list[str] | None = None, folder=None) -> SecondListener:
    """Train, measure, save."""
    args = options("second_listener", argv, STEPS)
    run = begin(run_file("second_listener", seed=args.seed, steps=args.steps), args)
    listener, history = train_second_listener(args.steps, run, seed=args.seed)
    finished(history)
    metrics = measure(listener, checkpoints.load("codec"))
    ship("second_listener", listener, history, args, run, metrics, folder, dtype=torch.float16)
    return listener


if __name__ == "__main__":
    main()
