"""What the studies of chapter 03 share: pictures, a loss that counts signs more, and what judges still
see."""
import base64
import io
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import nn

from mmcourse import checkpoints
from mmcourse.judges import PictureReader
from mmcourse.judges.metrics import frechet_distance, pooled_psnr, rounded, sign_accuracy
from mmcourse.vqvae import vqvae_loss
from mmcourse.world.pictures import SIGN_TOP, SIZE, draw_batch
from mmcourse.world.scene import Scene, sample_scene

SIGN_WEIGHT = 6.0                       # how much a pixel in the sign's rows counts
SHOWN = 4                               # pictures of each row that the file keeps


def batch_of(n: int):
    """`batch(rng)` for `train`: n training scenes on the grid, as the transformer's world has them."""
    def batch(rng: np.random.Generator) -> tuple[torch.Tensor]:
        return (draw_batch([sample_scene(rng) for _ in range(n)]),)
    return batch


def letter_loss(model: nn.Module, images: torch.Tensor, weight: float = SIGN_WEIGHT) -> dict:
    """`vqvae_loss` in which the rows of the sign count `weight` times as much as the others."""
    weights = torch.ones(SIZE, 1)
    weights[SIGN_TOP:] = weight
    return vqvae_loss(model, images, weights)


@cache
def held_out(n: int) -> tuple[list[Scene], torch.Tensor]:
    """The first `n` of the scenes that everything is measured on, none of them trained on, and their
    pictures."""
    rng = np.random.default_rng((0, 99))
    scenes = [sample_scene(rng, "held-out") for _ in range(n)]
    return scenes, draw_batch(scenes)


def signed_scenes(n: int, stream: tuple[int, int], jitter: int = 0) -> tuple[list[Scene], torch.Tensor]:
    """`n` held-out scenes that all have a sign, moved by up to `jitter` pixels, and their pictures."""
    rng, scenes = np.random.default_rng(stream), []
    while len(scenes) < n:
        scene = sample_scene(rng, "held-out", jitter=jitter)
        scenes += [scene] if scene.sign else []
    return scenes, draw_batch(scenes)


def letter_accuracy(pictures: torch.Tensor, scenes: list[Scene]) -> float:
    """The share of the signs' letters that stand in their place, read by template."""
    signed = [i for i, scene in enumerate(scenes) if scene.sign]
    said = [seen.sign if seen else "" for seen in PictureReader().read(pictures[signed])]
    right = sum(a == b for text, i in zip(said, signed) for a, b in zip(text, scenes[i].sign))
    return right / sum(len(scenes[i].sign) for i in signed)


def judge(pictures: torch.Tensor, read: int) -> dict:
    """What can still be seen in pictures of the first held-out scenes, (n, 3, 64, 64).

    Objects by the course's classifier, letters by template, the first `read` signs by an OCR engine that
    knows nothing of this world (no entry if it is not installed), and the Frechet distance to as many true
    pictures of other scenes.
    """
    n, net = len(pictures), checkpoints.load("picture_judge")
    scenes, truth = held_out(2 * n)
    signed = [i for i, scene in enumerate(scenes[:n]) if scene.sign][:read]
    out = {"objects": net.accuracy(pictures, scenes[:n]),
           "fd": frechet_distance(net.features(pictures), net.features(truth[n:])),
           "letters": letter_accuracy(pictures, scenes[:n]),
           "signs_ocr": sign_accuracy(pictures[signed], [scenes[i] for i in signed])}
    return rounded({name: value for name, value in out.items() if value is not None})


def signed_row(pictures: torch.Tensor, truth: torch.Tensor, scenes: list[Scene], **more) -> dict:
    """How near pictures of signed scenes are, and what can still be read in them."""
    out = {"psnr_db": round(pooled_psnr(pictures, truth), 2),
           "objects": checkpoints.load("picture_judge").accuracy(pictures, scenes),
           "signs_ocr": sign_accuracy(pictures, scenes)}
    return {**rounded({name: value for name, value in out.items() if value is not None}), **more}


def strip(pictures: torch.Tensor) -> str:
    """(B, 3, H, W) side by side as a WebP file in base64: it has all colours; a small palette turns red
    brown."""
    row = (torch.cat(list(pictures), 2).permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(row).save(file, "WEBP", quality=92, method=6)
    return base64.b64encode(file.getvalue()).decode()
