"""The diffusion decoder for sound: `mmcourse train sound_decoder`, about 8 CPU minutes.

What it buys, and what the control of the same network without noise does, is measured by `mmcourse study
ch07_sound`.
"""
import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.codec import AudioCodec
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.recipes.codec import CodecBatches
from mmcourse.sound_decoder import SoundDecoder, plain_mel_and_codes, sound_decoder_loss
from mmcourse.spectrogram import log_mel, normalize_loudness
from mmcourse.training import History, Run, train

STEPS = 2400
BATCH = 32
LR = 1.5e-3
MUON_LR = 0.02
EMA_DECAY = 0.998                       # of the shipped weights
SHORT_EMA_DECAY = 0.99                  # of runs of up to 1,000 steps


def make_batch(codec: AudioCodec, batch: int = BATCH):
    """`batch(rng)` for `train`: the codec's training sounds as true log-mel, plain log-mel and code
    vectors."""
    draw = CodecBatches(batch)

    def make(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sound = normalize_loudness(draw(rng)[0])
        return log_mel(sound, codec.filters), *plain_mel_and_codes(codec, codec.encode(sound)[..., :1])
    return make


def train_decoder(loss=sound_decoder_loss, name: str = "flow", steps: int = STEPS, seed: int = 0, context: int = 4,
                  batch: int = BATCH, progress: bool = True) -> tuple[SoundDecoder, History]:
    """Train one decoder with `loss`, or go on with the run of that `name` that was stopped; 0.2 s a step."""
    codec = checkpoints.load("codec")
    torch.manual_seed(seed)
    model = SoundDecoder(bands=codec.config["bands"], code_dim=codec.config["dim"], context=context)
    run = kept_in(name, steps, seed, context, batch)
    ema_decay = EMA_DECAY if steps > 1000 else SHORT_EMA_DECAY
    history = train(model, make_batch(codec, batch), loss, steps=steps,
                    optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=100, ema_decay=ema_decay),
                    run=Run(seed=seed, resume=run, log_every=20, save_every=200, progress=progress))
    return model, finished(history)


def kept_in(name: str = "flow", steps: int = STEPS, seed: int = 0, context: int = 4, batch: int = BATCH):
    """The file of a run of `train_decoder`."""
    return run_file("sound_decoder", name=name, steps=steps, seed=seed, context=context, batch=batch,
                    codec=checkpoints.identity("codec"))


def main(argv: list[str] | None = None, folder=None) -> SoundDecoder:
    """Train (or go on training) the decoder and ship it."""
    args = options("sound_decoder", argv, STEPS)
    run = begin(kept_in(steps=args.steps, seed=args.seed), args)
    model, history = train_decoder(steps=args.steps, seed=args.seed)
    ship("sound_decoder", model, history, args, run, {}, folder, dtype=torch.float16, codec=checkpoints.identity("codec"))
    print("once it is shipped, measure it: mmcourse study ch07_sound --fresh")
    return model
