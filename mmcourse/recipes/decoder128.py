"""The decoder that paints 128x128 from the same 64 tokens: `mmcourse train decoder128`, about 15 CPU minutes.

It starts from the weights of the shipped 64x64 decoder, all but those of its first and last layer, which see
and paint more pixels. What it buys is measured by `mmcourse study ch07_decoder128`.
"""
import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.diffusion import FlowDecoder, decoder_loss, plain_and_codes
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.training import History, Run, train
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene

STEPS = 2400
BATCH = 32
LR = 1.5e-3
MUON_LR = 0.02
EMA_DECAY = 0.998                       # of the shipped weights
JITTER = 2                              # pixels (of 64) by which half of the drawings are moved
SIZE = 128                              # pixels, width and height
POOL = 6000                             # scenes, drawn once: drawing them costs more than a step


def make_pool(vqvae: VQVAE, n: int = POOL, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """`n` training scenes, half of them jittered: pictures (n, 3, 128, 128) uint8 and their tokens (n, 8,
    8)."""
    rng = np.random.default_rng((seed, 31))
    scenes = [sample_scene(rng, jitter=JITTER * int(rng.integers(2))) for _ in range(n)]
    parts = [scenes[i:i + 100] for i in range(0, n, 100)]
    pictures = torch.cat([(draw_batch(part, SIZE) * 255).round().to(torch.uint8) for part in parts])
    return pictures, torch.cat([vqvae.encode(draw_batch(part)) for part in parts])


def make_batch(vqvae: VQVAE, pool: int = POOL):
    """`batch(rng)` for `train`: true large pictures, and what the tokenizer leaves of them at 64x64."""
    pictures, tokens = make_pool(vqvae, pool)

    def make(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = torch.from_numpy(rng.integers(len(tokens), size=BATCH))
        return pictures[rows].float() / 255, *plain_and_codes(vqvae, tokens[rows])
    return make


def start_from(small: FlowDecoder, scale: int = SIZE // 64) -> FlowDecoder:
    """A decoder for larger pictures with all the weights of `small` that fit."""
    model = FlowDecoder(**{**small.config, "scale": scale})
    fresh = model.state_dict()
    model.load_state_dict({k: w if w.shape == fresh[k].shape else fresh[k] for k, w in small.state_dict().items()})
    return model


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the decoder and ship it."""
    args = options("decoder128", argv, STEPS)
    vqvae, made_with = checkpoints.load("vqvae"), checkpoints.identity("vqvae")
    torch.manual_seed(args.seed)
    model = start_from(checkpoints.load("decoder"))
    run = begin(run_file("decoder128", seed=args.seed, steps=args.steps, vqvae=made_with,
                         begun_from=checkpoints.identity("decoder")), args)
    history = train(model, make_batch(vqvae), decoder_loss, steps=args.steps,
                    optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=100, ema_decay=EMA_DECAY),
                    run=Run(seed=args.seed, resume=run, log_every=25, save_every=100))
    ship("decoder128", model, finished(history), args, run, {}, folder, dtype=torch.float16, vqvae=made_with)
    print("once it is shipped, measure it: mmcourse study ch07_decoder128 --fresh")
    return history
