"""data/gallery.png, the picture in the README: real answers of the shipped model, none chosen by eye.

`mmcourse gallery [--seed 0]`. Scenes come from the held-out split in the order in which the seed makes them.
"""
import argparse
import textwrap

from matplotlib import pyplot as plt

from mmcourse import checkpoints, show
from mmcourse.assistant import Assistant, load
from mmcourse.judges.metrics import held_out_scenes
from mmcourse.media import Image, Text
from mmcourse.paths import DATA
from mmcourse.world.pictures import draw
from mmcourse.world.scene import NOUNS, Scene, caption

COLUMNS = 6
STREAM = 55                             # of the scenes
PAINTED = {"vq": "text → picture\n(plain decoder)", "diffusion": "the same tokens\n(diffusion decoder)"}


def draw_gallery(assistant: Assistant, seed: int = 0, judge=None):
    """A matplotlib figure: prompts drawn by both decoders, pictures described, words spoken."""
    show.style()
    decoders = ("vq", "diffusion") if assistant.decoder is not None else ("vq",)
    rows = len(decoders) + 2
    fig, axes = plt.subplots(rows, COLUMNS, figsize=(12, 2.15 * rows + 0.9),
                             gridspec_kw={"height_ratios": [*[1] * len(decoders), 1.05, 0.8]})
    scenes = held_out_scenes(2 * COLUMNS, seed, stream=STREAM)
    for column in range(COLUMNS):
        draw_caption(assistant, scenes[column], axes[:-2, column], decoders, seed)
        describe_picture(assistant, scenes[COLUMNS + column], axes[-2, column], seed)
        speak_word(assistant, NOUNS[(11 * column + 7 + seed) % len(NOUNS)], axes[-1, column], seed, judge)
    names = [*(PAINTED[decoder] for decoder in decoders), "picture → text", "text → speech"]
    for row, name in enumerate(names):
        axes[row, 0].set_ylabel(name, fontsize=9)
        for axis in axes[row]:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
    return fig


def quoted(text: str) -> str:
    """A text in quotation marks, in lines that fit a column."""
    return "“" + "\n".join(textwrap.wrap(text, 26)) + "”"


def draw_caption(assistant: Assistant, scene: Scene, axes, decoders: tuple[str, ...], seed: int) -> None:
    """A column's pictures: the caption of a scene, drawn once and painted by each decoder."""
    prompt = caption(scene)
    segment = assistant.tokens([Text(prompt)], "image", seed=seed)
    for axis, decoder in zip(axes, decoders):
        axis.imshow(assistant.render(segment, decoder=decoder, seed=seed).pixels, interpolation="nearest")
    axes[0].set_title(quoted(prompt), fontsize=8)


def describe_picture(assistant: Assistant, scene: Scene, axis, seed: int) -> None:
    """A true picture and what the model says of it."""
    given = Image(draw(scene))
    axis.imshow(given.pixels, interpolation="nearest")
    axis.set_xlabel(quoted(assistant.generate([given], "text", seed=seed).text), fontsize=8)


def speak_word(assistant: Assistant, word: str, axis, seed: int, judge=None) -> None:
    """The spectrogram of a spoken word, and what a judge hears in it."""
    sound = assistant.generate([Text(word)], "audio", seed=seed)
    show._spectrogram(axis, sound.samples, sound.rate, "")
    heard = f"\na judge hears “{judge.hear(sound.samples[None])[0]}”" if judge is not None else ""
    axis.set(title="", ylabel="", xlabel=f"“{word}”{heard}")
    axis.xaxis.label.set_fontsize(8)


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
    width, height = fig.get_size_inches() * 80
    print(f"{args.out}: {width:.0f} x {height:.0f} pixels")
    return 0
