"""The decoder that paints 128x128 from the same 64 tokens: `python -m mmcourse train decoder128`, about 15 CPU minutes.

It starts from the weights of the shipped 64x64 decoder, all but those of its first and last layer, which see and paint more
pixels.
"""
import json
import time

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.diffusion import FlowDecoder, enlarge, flow_loss, plain_and_codes
from mmcourse.optim import Optim
from mmcourse.paths import RESULTS, cache_dir
from mmcourse.recipes.decoder import held_out_scenes, sharpness
from mmcourse.training import History, Run, train
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene

STEPS, BATCH, LR, MUON_LR, JITTER, SIZE = 2400, 32, 1.5e-3, 0.02, 2, 128
POOL = 6000                                             # scenes, drawn once: drawing them costs more than a step
AVERAGE = 0.998


def make_pool(vqvae: VQVAE, n: int = POOL, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """`n` training scenes, half of them jittered: pictures (n, 3, 128, 128) uint8 and their tokens (n, 8, 8)."""
    rng = np.random.default_rng((seed, 31))
    scenes = [sample_scene(rng, jitter=JITTER * int(rng.integers(2))) for _ in range(n)]
    parts = [scenes[i:i + 100] for i in range(0, n, 100)]
    pictures = torch.cat([(draw_batch(part, SIZE) * 255).round().to(torch.uint8) for part in parts])
    return pictures, torch.cat([vqvae.encode(draw_batch(part)) for part in parts])


def start_from(small: FlowDecoder, scale: int = SIZE // 64) -> FlowDecoder:
    """A decoder for larger pictures with all the weights of `small` that fit."""
    model = FlowDecoder(**{**small.config, "scale": scale})
    fresh = model.state_dict()
    model.load_state_dict({k: w if w.shape == fresh[k].shape else fresh[k] for k, w in small.state_dict().items()})
    return model


def loss(model: FlowDecoder, images: torch.Tensor, plain: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The flow's data is what the enlarged plain picture got wrong, in units of the model's `error`."""
    return flow_loss(model, (images - enlarge(plain, model.scale)) / model.residual_std, plain, codes)


@torch.no_grad()
def measure(n: int = 200, seed: int = 0, steps: int = 2, jitter: int = 0) -> dict:
    """The plain picture enlarged and the 128x128 decoder, on the same tokens of `n` held-out scenes, against true pictures.

    `psnr_*` and `sharpness_*` at 128x128. Judges read 64x64 pictures, so `fd_same_*` (Frechet distance to the true pictures
    of the same scenes), `nouns_*` and `signs_*` (OCR) are of the pictures shrunk to that. `fine_*`: how much there is of
    what 64x64 pixels cannot hold, as a share of what true pictures have of it. `ms_*`: CPU milliseconds a picture.
    """
    from mmcourse.judges import read_sign
    from mmcourse.judges.picture_net import frechet_distance, noun_accuracy
    net, vqvae, decoder = (checkpoints.load(name) for name in ("picture_judge", "vqvae", "decoder128"))
    scenes = held_out_scenes(n, seed, jitter)
    truth, ids = draw_batch(scenes, SIZE), vqvae.encode(draw_batch(scenes))
    made = {"enlarged": enlarge(vqvae.decode(ids), 2),
            "diffusion": torch.cat([decoder.decode(part, vqvae, steps, seed + i) for i, part in enumerate(ids.split(50))])}

    def shrink(x):
        return torch.nn.functional.avg_pool2d(x, 2)

    def fine(x):
        return (x - enlarge(shrink(x), 2)).square().mean().item()
    signed = [i for i, s in enumerate(scenes) if s.sign]
    out = {"n": n, "seed": seed, "steps": steps, "jitter": jitter, "sharpness_true": sharpness(truth)}
    try:
        out["signs_true"] = float(np.mean([read_sign(shrink(truth[i:i + 1])[0]) == scenes[i].sign for i in signed]))
    except ImportError:                                                # rapidocr comes with the test extra
        signed = []
    features = net.features(shrink(truth))
    for name, images in made.items():
        small = shrink(images)
        out[f"psnr_{name}"] = -10 * (images - truth).square().mean((1, 2, 3)).mean().log10().item()
        out[f"fd_same_{name}"] = frechet_distance(features, net.features(small))
        out[f"nouns_{name}"] = noun_accuracy(net, small, scenes)
        out[f"sharpness_{name}"], out[f"fine_{name}"] = sharpness(images), fine(images) / fine(truth)
        if signed:
            out[f"signs_{name}"] = float(np.mean([read_sign(small[i]) == scenes[i].sign for i in signed]))
    for name, decode in (("enlarged", lambda x: enlarge(vqvae.decode(x), 2)),
                         ("diffusion", lambda x: decoder.decode(x, vqvae, steps, seed))):
        start = time.process_time()
        for i in range(4):
            decode(ids[i:i + 1])
        out[f"ms_{name}"] = (time.process_time() - start) * 250
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in out.items()}


def main(argv: list[str] | None = None) -> History:
    """Train (or go on training) the decoder, ship it, and write `data/results/ch07_decoder128.json`."""
    from mmcourse.recipes import options
    args = options("decoder128", argv, steps=STEPS)
    vqvae, made_with = checkpoints.load("vqvae"), checkpoints.identity("vqvae")
    torch.manual_seed(args.seed)
    model = start_from(checkpoints.load("decoder"))
    pictures, tokens = make_pool(vqvae)

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        rows = torch.from_numpy(rng.integers(len(tokens), size=BATCH))
        return pictures[rows].float() / 255, *plain_and_codes(vqvae, tokens[rows])
    history = train(model, batch, loss, steps=args.steps,
                    optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=100, ema_decay=AVERAGE),
                    run=Run(seed=args.seed, resume=cache_dir() / "runs" / f"decoder128-{made_with[:8]}.pt", log_every=25, save_every=100))
    if not history.interrupted:
        checkpoints.save("decoder128", model, seed=args.seed, steps=args.steps, cpu_minutes=history.cpu_minutes, metrics={},
                         dtype=torch.float16, vqvae=made_with)
        write_results()
    return history


def write_results(n: int = 200) -> dict:
    """The table of chapter 07, as `data/results/ch07_decoder128.json`."""
    results = {"steps": [measure(n, steps=steps) for steps in (1, 2, 4, 8)],
               "seeds": [measure(n, seed) for seed in (1, 2)],
               "jitter": [measure(n, jitter=JITTER)]}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "ch07_decoder128.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
