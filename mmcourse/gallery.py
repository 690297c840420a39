"""data/gallery.png, the picture in the README: real answers of the shipped model, none chosen by eye.

`python -m mmcourse.gallery [--seed 0]`. Scenes come from the held-out split in the order in which the seed makes them.
"""
import argparse
import textwrap

import numpy as np
from matplotlib import pyplot as plt

from mmcourse import checkpoints, show
from mmcourse.assistant import Assistant, Image, Text, load
from mmcourse.paths import DATA
from mmcourse.world.pictures import draw
from mmcourse.world.scene import NOUNS, Scene, caption, sample_scene

COLUMNS = 6


def held_out_scenes(n: int, seed: int) -> list[Scene]:
    """Scenes whose combinations nothing was trained on."""
    rng = np.random.default_rng((seed, 55))
    return [sample_scene(rng, "held-out") for _ in range(n)]


def draw_gallery(assistant: Assistant, seed: int = 0, judge=None):
    """A matplotlib figure: prompts drawn by both decoders, pictures described, words spoken."""
    show.style()
    pictures = ("vq", "diffusion") if assistant.decoder is not None else ("vq",)
    rows = len(pictures) + 2
    fig, axes = plt.subplots(rows, COLUMNS, figsize=(12, 2.15 * rows + 0.9),
                             gridspec_kw={"height_ratios": [*[1] * len(pictures), 1.05, 0.8]})
    scenes = held_out_scenes(2 * COLUMNS, seed)
    for column in range(COLUMNS):
        prompt = caption(scenes[column])
        segment = assistant.tokens([Text(prompt)], "image", seed=seed)
        for row, decoder in enumerate(pictures):
            axes[row, column].imshow(assistant.render(segment, decoder=decoder, seed=seed).pixels, interpolation="nearest")
        axes[0, column].set_title("“" + "\n".join(textwrap.wrap(prompt, 26)) + "”", fontsize=8)
        given = Image(draw(scenes[COLUMNS + column]))
        answer = assistant.generate([given], "text", seed=seed)
        axes[-2, column].imshow(given.pixels, interpolation="nearest")
        axes[-2, column].set_xlabel("“" + "\n".join(textwrap.wrap(answer.text, 26)) + "”", fontsize=8)
        word = NOUNS[(11 * column + 7 + seed) % len(NOUNS)]
        sound = assistant.generate([Text(word)], "audio", seed=seed)
        show._spectrogram(axes[-1, column], sound.samples, sound.rate, "")
        heard = f"\na judge hears “{judge.hear(sound.samples[None])[0]}”" if judge is not None else ""
        axes[-1, column].set(title="", ylabel="", xlabel=f"“{word}”{heard}")
        axes[-1, column].xaxis.label.set_fontsize(8)
    painted = {"vq": "text → picture\n(plain decoder)", "diffusion": "the same tokens\n(diffusion decoder)"}
    names = [*(painted[p] for p in pictures),
             "picture → text", "text → speech"]
    for row, name in enumerate(names):
        axes[row, 0].set_ylabel(name, fontsize=9)
        for axis in axes[row]:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
    return fig


def main(argv: list[str] | None = None) -> int:
    """Make the figure and save it."""
    parser = argparse.ArgumentParser(prog="mmcourse gallery", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=DATA / "gallery.png")
    args = parser.parse_args(argv)
    show.setup(args.seed)
    judge = checkpoints.load("word_judge") if "word_judge" in checkpoints.manifest() else None
    fig = draw_gallery(load(), args.seed, judge)
    fig.savefig(args.out, dpi=80, facecolor="white")
    print(f"{args.out}: {fig.get_size_inches()[0] * 80:.0f} x {fig.get_size_inches()[1] * 80:.0f} pixels")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
