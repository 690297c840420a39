"""The diffusion decoder for sound: `mmcourse train sound_decoder`, about 8 CPU minutes.

What it buys, and what the control of the same network without noise does, is measured by `mmcourse study
ch07_sound`.
"""
import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.codec import AudioCodec
from mmcourse.optim import Optim
from mmcourse.paths import CHECKPOINTS, cache_dir
from mmcourse.recipes import options
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
    codec, made_with = checkpoints.load("codec"), checkpoints.identity("codec")
    torch.manual_seed(seed)
    model = SoundDecoder(bands=codec.config["bands"], code_dim=codec.config["dim"], context=context)
    run = cache_dir() / "runs" / f"sound-{name}-{context}-{steps}-{seed}-{made_with[:8]}.pt"
    ema_decay = EMA_DECAY if steps > 1000 else SHORT_EMA_DECAY
    history = train(model, make_batch(codec, batch), loss, steps=steps,
                    optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=100, ema_decay=ema_decay),
                    run=Run(seed=seed, resume=run, log_every=20, save_every=200, progress=progress))
    if history.interrupted:
        raise SystemExit(f"interrupted; the same command goes on from {run}")
    return model, history


def main(argv: list[str] | None = None, folder=CHECKPOINTS) -> SoundDecoder:
    """Train (or go on training) the decoder and ship it."""
    args = options("sound_decoder", argv, STEPS)
    model, history = train_decoder(steps=args.steps, seed=args.seed)
    checkpoints.save("sound_decoder", model, seed=args.seed, steps=args.steps, cpu_minutes=history.cpu_minutes,
                     metrics={}, folder=folder, dtype=torch.float16, codec=checkpoints.identity("codec"))
    print("now measure it: mmcourse study ch07_sound --fresh")
    return model
