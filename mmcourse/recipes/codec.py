"""The shipped sound tokenizer: `mmcourse train codec`, about 21 CPU minutes."""
import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.codec import FRAME_SAMPLES, AudioCodec, codec_loss
from mmcourse.distributed import first_alone
from mmcourse.judges.hearing import measure_codec
from mmcourse.judges.metrics import if_installed
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, rank_0_goes_on, run_file, ship
from mmcourse.spectrogram import normalize_loudness
from mmcourse.training import History, Run, train
from mmcourse.world.augment import change_speed
from mmcourse.world.human_digits import load_human_digits
from mmcourse.world.speech import SAMPLE_RATE, load_speech

STEPS = 9000
BATCH = 32
SECONDS = 0.96                         # of sound in a row of a batch
LR = 2e-3
MUON_LR = 0.02
PEOPLE = 0.3                           # the share of words spoken by people, if the human digits are there
# How often 1, 2, 3 and 4 levels are used: the transformer models the first two.
LEVEL_SHARES = (0.25, 0.4, 0.1, 0.25)


class CodecBatches:
    """Random sound of the training voices: words at random moments, a little faster or slower, louder or
    softer."""

    def __init__(self, batch: int = BATCH, seconds: float = SECONDS, humans: bool = True,
                 level_shares=LEVEL_SHARES):
        corpus = load_speech()
        self.clips = [corpus.clips[i] for i in corpus.select()]
        digits = load_human_digits() if humans else None
        self.human = [c for c, out in zip(digits.clips, digits.held_out) if not out] if digits else []
        self.length = int(seconds * SAMPLE_RATE) // FRAME_SAMPLES * FRAME_SAMPLES
        self.batch, self.level_shares = batch, level_shares

    def clip(self, rng: np.random.Generator) -> np.ndarray:
        """One word, spoken; `PEOPLE` of them by a person, if the human digits are there."""
        pool = self.human if self.human and rng.random() < PEOPLE else self.clips
        clip = pool[rng.integers(len(pool))]
        if rng.random() < 0.5:                        # another speed moves pitch and formants too: a new voice
            clip = change_speed(clip, rng.uniform(0.88, 1.14))
        return clip

    def __call__(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, samples) sound and (B,) the number of levels that each row may use."""
        out = np.zeros((self.batch, self.length), np.float32)
        for row in out:
            start = 0 if rng.random() < 0.5 else -int(rng.integers(4000))           # negative: it begins mid-word
            while start < self.length - 800:
                clip = self.clip(rng)
                part = clip[max(0, -start):][:self.length - max(0, start)]
                row[max(0, start):max(0, start) + len(part)] = part
                start += len(clip) + int(rng.integers(4000))
                if rng.random() < 0.3:                                                # silence to the end
                    break
            row += rng.normal(0, 10 ** rng.uniform(-5, -2.7), self.length) * (rng.random() < 0.3)
        gain = torch.from_numpy(rng.uniform(0.85, 1.15, (self.batch, 1))).float()
        sound = normalize_loudness(torch.from_numpy(out)) * gain
        return sound, torch.from_numpy(rng.choice(4, self.batch, p=self.level_shares) + 1)


def train_codec(steps: int | None = None, resume=None, *, seed: int = 0, progress: bool = True, width: int = 128,
                batch: int = BATCH, humans: bool = True, lr: float = LR) -> tuple[AudioCodec, History]:
    """Train a codec; `resume` names a file from which an interrupted run goes on. 0.2 s a step on one
    core."""
    torch.manual_seed(seed)
    codec = AudioCodec(width=width)
    with first_alone():
        batches = CodecBatches(batch, humans=humans)
    history = train(codec, batches, codec_loss, steps=steps or STEPS,
                    optim=Optim("muon", lr=lr, muon_lr=MUON_LR, weight_decay=0.0, warmup=100),
                    run=Run(seed=seed, resume=resume, save_every=250, progress=progress))
    return codec, history


def measure(codec: AudioCodec) -> dict:
    """Held-out voices through the codec (`measure_codec`), with the judge of words if it is there."""
    judge = checkpoints.load("word_judge") if "word_judge" in checkpoints.manifest() else None
    return if_installed(lambda: measure_codec(codec, load_speech(), judge)) or {}


def main(argv: list[str] | None = None, folder=None) -> AudioCodec:
    """Train, measure, save."""
    args = options("codec", argv, STEPS, together=True)
    people = load_human_digits() is not None
    run = begin(run_file("codec", seed=args.seed, steps=args.steps, people=people), args)
    codec, history = train_codec(args.steps, run, seed=args.seed)
    finished(history)
    rank_0_goes_on()
    ship("codec", codec, history, args, run, measure(codec), folder, human_digits=people)
    return codec
