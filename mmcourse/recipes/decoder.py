"""The shipped diffusion decoder: `python -m mmcourse train decoder`, about 14 CPU minutes; and how it is measured."""
import json
import time

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse import checkpoints
from mmcourse.diffusion import FlowDecoder, flow_loss, plain_and_codes
from mmcourse.optim import Optim
from mmcourse.paths import RESULTS, cache_dir
from mmcourse.training import History, Run, train
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Scene, sample_scene

STEPS, BATCH, LR, MUON_LR, JITTER = 3600, 32, 1.5e-3, 0.02, 2
AVERAGE = 0.998                                         # the shipped weights are a running mean


def make_batch(vqvae: VQVAE):
    """`batch(rng)` for `train`: true pictures, and what is left of them after the tokenizer."""
    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        images = draw_batch([sample_scene(rng, jitter=JITTER * int(rng.integers(2))) for _ in range(BATCH)])
        return images, *plain_and_codes(vqvae, vqvae.encode(images))
    return batch


def loss(model: FlowDecoder, images: torch.Tensor, plain: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The flow's data is what the plain decoder got wrong, in units of the model's `error`."""
    return flow_loss(model, (images - plain) / model.residual_std, plain, codes)


def held_out_scenes(n: int, seed: int, jitter: int = 0) -> list[Scene]:
    """`n` scenes whose combinations nothing was trained on."""
    rng = np.random.default_rng((seed, 97, jitter))
    return [sample_scene(rng, "held-out", jitter=jitter) for _ in range(n)]


def sharpness(images: torch.Tensor) -> float:
    """Mean absolute difference of neighbouring pixels: blur lowers it, grain raises it; compare with true pictures."""
    return ((images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()) / 2).item()


@torch.no_grad()
def measure(n: int = 256, seed: int = 0, steps: int = 8, sampler: str = "euler", jitter: int = 0) -> dict:
    """Plain and diffusion decoder on the same tokens of `n` held-out scenes, with floor, ceiling and controls.

    `fd_*`: Frechet distance in `PictureNet`'s features to `n` *other* true pictures; `fd_floor` is that of the true
    pictures themselves. `fd_same_*`: to the true pictures of the *same* scenes, where the floor is 0 and which objects
    were drawn plays no part: the finer ruler (`fd_same_blur`: true pictures with a 3x3 blur). `nouns_*`: share of pictures
    that PictureNet reads rightly. `sharpness_*`: see `sharpness`. `ms_*`: CPU milliseconds a picture, one by one.
    """
    from mmcourse.judges.picture_net import frechet_distance, noun_accuracy
    net, vqvae, decoder = (checkpoints.load(name) for name in ("picture_judge", "vqvae", "decoder"))
    scenes = held_out_scenes(n, seed, jitter)
    truth, other = draw_batch(scenes), draw_batch(held_out_scenes(n, seed + 1000, jitter))
    ids = vqvae.encode(truth)
    made = {"plain": vqvae.decode(ids),
            "diffusion": torch.cat([decoder.decode(part, vqvae, steps, seed + i, sampler)
                                    for i, part in enumerate(ids.split(64))])}
    same, target = net.features(truth), net.features(other)
    blurred = F.avg_pool2d(F.pad(truth, (1, 1, 1, 1), mode="replicate"), 3, 1)
    out = {"n": n, "seed": seed, "steps": steps, "sampler": sampler, "jitter": jitter,
           "fd_floor": frechet_distance(target, same), "fd_same_blur": frechet_distance(same, net.features(blurred)),
           "nouns_true": noun_accuracy(net, truth, scenes), "sharpness_true": sharpness(truth)}
    for name, images in made.items():
        errors = (images - truth).square().mean((1, 2, 3))
        features = net.features(images)
        out[f"fd_{name}"], out[f"fd_same_{name}"] = (frechet_distance(a, features) for a in (target, same))
        out[f"psnr_{name}"] = -10 * errors.mean().log10().item()
        out[f"nouns_{name}"] = noun_accuracy(net, images, scenes)
        out[f"sharpness_{name}"] = sharpness(images)
    for name, decode in (("plain", vqvae.decode), ("diffusion", lambda x: decoder.decode(x, vqvae, steps, seed, sampler))):
        start = time.process_time()
        for i in range(4):
            decode(ids[i:i + 1])
        out[f"ms_{name}"] = (time.process_time() - start) * 250
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in out.items()}


@torch.no_grad()
def measure_generated(n: int = 128, seed: int = 0, steps: int = 2) -> dict:
    """Both decoders on tokens that the *transformer* wrote for the captions of `n` held-out scenes, one try each.

    `nouns_*`: the share of captions whose nouns PictureNet reads in the picture; `fd_same_*`: to the true pictures of the
    captions; `signs_*`: the share of signs that OCR reads, None without it. `*_true_tokens`: the true picture's tokens.
    """
    from mmcourse.assistant import load
    from mmcourse.judges import read_sign
    from mmcourse.judges.picture_net import frechet_distance, noun_accuracy
    from mmcourse.world.scene import caption
    assistant, net, scenes = load(), checkpoints.load("picture_judge"), held_out_scenes(n, seed)
    truth = draw_batch(scenes)
    segments = [assistant.tokens(caption(s), "image", seed + i, best_of=1) for i, s in enumerate(scenes)]
    tokens = {"": torch.tensor([s.ids for s in segments]).view(-1, 8, 8), "_true_tokens": assistant.vqvae.encode(truth)}
    signed, features = [i for i, s in enumerate(scenes) if s.sign], net.features(truth)
    out = {"n": n, "seed": seed, "steps": steps, "signs": len(signed)}
    for suffix, ids in tokens.items():
        for name, images in (("plain", assistant.vqvae.decode(ids)),
                             ("diffusion", assistant.decoder.decode(ids, assistant.vqvae, steps, seed))):
            out[f"nouns_{name}{suffix}"] = noun_accuracy(net, images, scenes)
            out[f"fd_same_{name}{suffix}"] = frechet_distance(features, net.features(images))
            try:
                out[f"signs_{name}{suffix}"] = float(np.mean([read_sign(images[i]) == scenes[i].sign for i in signed]))
            except ImportError:                                        # rapidocr comes with the test extra
                out[f"signs_{name}{suffix}"] = None
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in out.items()}


@torch.no_grad()
def count_flops(scale: int = 1) -> dict:
    """Multiplications and additions to paint one picture: the plain decoder, and one call of the shipped U-Net."""
    from torch.utils.flop_counter import FlopCounterMode
    vqvae, decoder = checkpoints.load("vqvae"), checkpoints.load("decoder" if scale == 1 else "decoder128")
    ids = torch.zeros(1, 8, 8, dtype=torch.long)
    plain, codes = plain_and_codes(vqvae, ids)
    jobs = {"plain": lambda: vqvae.decode(ids),
            "call": lambda: decoder(torch.zeros(1, 3, 64 * scale, 64 * scale), torch.zeros(1), plain, codes)}
    out = {}
    for name, job in jobs.items():
        with FlopCounterMode(display=False) as counter:
            job()
        out[name] = counter.get_total_flops()
    return out


def main(argv: list[str] | None = None) -> History:
    """Train (or go on training) the decoder, ship it, and write `data/results/ch07_decoder.json`."""
    from mmcourse.recipes import options
    args = options("decoder", argv, steps=STEPS)
    vqvae, made_with = checkpoints.load("vqvae"), checkpoints.identity("vqvae")
    torch.manual_seed(args.seed)
    model = FlowDecoder(code_dim=vqvae.config["dim"])
    history = train(model, make_batch(vqvae), loss, steps=args.steps,
                    optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=100, ema_decay=AVERAGE),
                    run=Run(seed=args.seed, resume=cache_dir() / "runs" / f"decoder-{made_with[:8]}.pt", log_every=25, save_every=250))
    if not history.interrupted:
        def ship(metrics):
            checkpoints.save("decoder", model, seed=args.seed, steps=args.steps, cpu_minutes=history.cpu_minutes,
                             metrics=metrics, vqvae=made_with)
        ship({})                                                       # `measure` looks at what is shipped
        metrics = measure()
        ship(metrics)
        write_results()
        print(metrics)
    return history


def write_results(n: int = 256) -> dict:
    """The table of chapter 07 over numbers of steps and samplers, as `data/results/ch07_decoder.json`."""
    results = {"steps": [measure(n, steps=steps) for steps in (1, 2, 4, 8, 16)],
               "heun": [measure(n, steps=steps, sampler="heun") for steps in (2, 4, 8)],
               "seeds": [measure(n, seed) for seed in (1, 2)],
               "flops": count_flops(),
               "generated": [measure_generated(seed=seed) for seed in (0, 1, 2)],
               "jitter": [measure(n, steps=steps, jitter=JITTER) for steps in (1, 2, 4, 8)]}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "ch07_decoder.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
