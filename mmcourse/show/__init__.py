"""Looking and listening: pictures, curves, sounds, tables, each with a caption that is also its description.

Every figure goes out as a PNG whose alternative text is its caption: a reader who cannot see it, or a page
that shows no pictures, still learns what it shows. Colours are Okabe and Ito's (2008), told apart by
colour-blind readers; curves differ by line style as well. Outside a notebook only the caption is printed.
"""

from __future__ import annotations

import base64
import html
import importlib
import io
import os
import random
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", "--", "-.", ":")
# Between tokens: seen only where a page has taken all styles away (code-hosting sites do), so that their boundaries stay.
SEPARATOR = '<wbr><span style="font-size:0">|</span>'
_SUBMODULES = ("audio", "bill", "bits", "ch03", "ch08", "ch09", "ch10", "ch11", "ch12", "codebooks", "conversation", "depth",
               "diagrams", "flow", "inside", "inside_studies", "panel", "sequence", "shelves", "text")


def __getattr__(name: str):
    """`show.audio` and its kind are imported when they are first named; none is called like a function of this file."""
    if name in _SUBMODULES:
        return importlib.import_module(f"mmcourse.show.{name}")
    raise AttributeError(f"module 'mmcourse.show' has no attribute {name!r}")


def style() -> None:
    """Set matplotlib's defaults for the course: colour-blind-safe cycle, readable type, small files."""
    mpl.rcParams.update(
        {
            "figure.dpi": 76,
            "savefig.dpi": 76,
            "figure.figsize": (7.0, 3.4),
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "axes.prop_cycle": mpl.cycler(color=COLOURS),
            "axes.grid": True,
            "grid.alpha": 0.25,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "image.cmap": "cividis",
            "legend.frameon": False,
        }
    )


def setup(seed: int = 0) -> None:
    """Make a chapter's kernel ready: threads (`MMCOURSE_THREADS`, else 2), the figure style, every seed."""
    import torch

    from mmcourse.checks import check_seed

    asked = os.environ.get("MMCOURSE_THREADS") or "2"
    if not asked.isdigit() or int(asked) < 1:
        raise ValueError(f"MMCOURSE_THREADS is {asked!r}: set it to a whole number of threads, 1 or more")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(int(asked), cores))
    check_seed(seed, optional=False)
    random.seed(int(seed))
    np.random.seed(int(seed) % 2**32)
    torch.manual_seed(int(seed))
    style()


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def _array(x: Any) -> np.ndarray:
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)


def _say(text: str) -> None:
    if not text:
        return
    if not _in_notebook():
        print(text)
        return
    from IPython.display import display

    body = f'<p style="max-width:46em;margin:.2em 0 1em"><em>{html.escape(text)}</em></p>'
    display({"text/html": body, "text/plain": text}, raw=True)


def caption(text: str) -> None:
    """Show one line of text in italics under what came before: what the reader should see there."""
    _say(text)


def figure(fig: Figure, text: str = "", *, colours: int | None = None) -> None:
    """Show a figure of your own with its caption as alternative text, then close it.

    `colours` (2 to 256): draw it with that many colours, chosen for this figure; the file is then a third as large.
    """
    if _in_notebook():
        from IPython.display import display

        file = io.BytesIO()
        fig.savefig(file, format="png", bbox_inches="tight", facecolor="white")
        if colours is not None:
            from PIL import Image

            picture, file = Image.open(file).convert("RGB"), io.BytesIO()
            picture.quantize(colours, kmeans=4, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": text or "a figure"}
        display(data, raw=True, metadata={"image/png": {"alt": text or "a figure"}})
    plt.close(fig)
    _say(text)


def pixels(picture: Any) -> np.ndarray:
    """One picture of any usual kind as float (height, width, 3) in [0, 1].

    Takes (3, H, W) or (1, H, W) tensors, (H, W, 3) or (H, W) arrays, PIL images; bytes or floats in [0, 1].
    Floats a little outside that range are clipped, as every decoder makes some. ValueError for anything else.
    """
    if hasattr(picture, "convert"):
        picture = picture.convert("RGB")
    x = _array(picture)
    x = x / 255.0 if x.dtype == np.uint8 else x.astype(np.float64)
    if x.ndim == 2:
        x = x[:, :, None]
    elif x.ndim == 3 and x.shape[0] in (1, 3) and x.shape[2] not in (1, 3):
        x = x.transpose(1, 2, 0)
    if x.ndim != 3 or x.shape[2] not in (1, 3) or x.size == 0:
        shape = tuple(_array(picture).shape)
        raise ValueError(f"a picture of shape {shape}: give (3, H, W), (H, W, 3) or (H, W)")
    if not np.isfinite(x).all():
        raise ValueError("this picture has NaN or infinite values: look at what made it")
    if x.min() < -1 or x.max() > 2:
        found = f"from {x.min():.3g} to {x.max():.3g}"
        raise ValueError(f"this picture has values {found}: floats must lie in [0, 1], bytes be uint8")
    return np.repeat(x, 3, axis=2).clip(0, 1) if x.shape[2] == 1 else x.clip(0, 1)


def interact(draw: Any, **controls: Any) -> Any:
    """Sliders, and what `draw(**values)` shows for them, as `ipywidgets.interact` does; returns the widget.

    On a page without a kernel, where no widget lives, the picture for the first values stands in their place.
    """
    return controlled(draw, controls, "[Sliders ({names}); without a kernel, what they show at first.]",
                      f"Move the slider{'s' * (len(controls) > 1)}: {{names}}. Without a kernel the picture stands still.")


def controlled(draw: Any, controls: dict[str, Any], stands: str, says: str) -> Any:
    """`interact` for controls of any kind: `stands` is what a page without widgets has in their place, `says` the line below;
    `{names}` in them are the controls."""
    import ipywidgets

    first = {name: getattr(control, "value", control) for name, control in controls.items()}
    if not _in_notebook():
        draw(**first)
        return None
    from IPython.display import display
    from IPython.utils.capture import capture_output

    with capture_output() as still:                                     # what stands there if nothing moves
        draw(**first)
    box = ipywidgets.interactive(draw, **controls)
    names = ", ".join(control.description or name for name, control in zip(controls, box.children))
    data, height = _still(still.outputs, still.stdout)
    data["text/plain"] = stands.format(names=names)
    box.children[-1].layout.min_height = f"{height}px"                   # so that the page does not jump
    bundle = box._repr_mimebundle_()
    view = "application/vnd.jupyter.widget-view+json"
    alt = {"image/png": {"alt": f"{data['text/plain']} {' '.join(_texts(still.outputs))}".strip()}}
    display({**data, view: bundle[view]}, raw=True, metadata=alt if "image/png" in data else {})
    _say(says.format(names=names))
    return box


def upload(kind: str = "picture") -> Any:
    """Show a button that chooses a file, `picture` or `sound`, of any size; returns its widget: `file` holds the bytes."""
    from mmcourse.show.inputs import Upload

    widget = Upload(kind=kind)
    if _in_notebook():
        from IPython.display import display

        sentence = f"[A button to choose a {kind}; it needs a running kernel.]"
        bundle = widget._repr_mimebundle_()                              # anywidget: data and metadata
        display({**(bundle[0] if isinstance(bundle, tuple) else bundle), "text/plain": sentence}, raw=True)
    return widget


def _texts(outputs: Sequence) -> list[str]:
    """The plain texts of captured outputs, pictures aside."""
    return [o.data.get("text/plain", "") for o in outputs if "image/png" not in o.data]


def _still(outputs: Sequence, printed: str = "") -> tuple[dict[str, str], int]:
    """Captured outputs as the data of one: a picture alone stays a picture, all else becomes HTML; and its height in pixels."""
    from PIL import Image

    images = [o.data["image/png"] for o in outputs if "image/png" in o.data]
    height = sum(Image.open(io.BytesIO(base64.b64decode(image))).height for image in images) + 34 * (len(outputs) - len(images))
    if len(images) == 1:
        return {"image/png": images[0]}, height
    parts = [f"<pre>{html.escape(printed)}</pre>"] if printed.strip() else []
    for output in outputs:
        if "image/png" in output.data:
            alt = html.escape((output.metadata or {}).get("image/png", {}).get("alt", "a figure"))
            parts.append(f'<p><img alt="{alt}" src="data:image/png;base64,{output.data["image/png"]}"></p>')
        else:
            text = output.data.get("text/markdown") or output.data.get("text/plain", "")
            parts.append(output.data.get("text/html") or f"<pre>{html.escape(text)}</pre>")
    return {"text/html": "".join(parts)}, height


def pictures(
    images: Any,
    titles: Sequence[str] | None = None,
    caption: str = "",
    *,
    columns: int = 8,
    size: float = 1.3,
    colours: int | None = 256,
) -> None:
    """Show pictures in rows of at most `columns`, `size` inches each: a list, a batch, or one picture.

    All of them together get `colours` colours, which is hard to see and makes the page lighter; None: all they have.
    """
    if hasattr(images, "convert") or (not isinstance(images, (list, tuple)) and _array(images).ndim <= 3):
        images = [images]
    if len(images) == 0:
        raise ValueError("no pictures to show: the list is empty")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(images)} pictures but {len(titles)} titles: give one title for each")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    room = 0.22 * (1 + max(str(t).count("\n") for t in titles)) if titles else 0.05
    fig, axes = plt.subplots(rows, columns, figsize=(size * columns, (size + room) * rows), squeeze=False)
    for i, axis in enumerate(axes.flat):
        axis.axis("off")
        if i < len(images):
            axis.imshow(pixels(images[i]), interpolation="nearest")
            if titles is not None:
                axis.set_title(str(titles[i]), fontsize=8.5, pad=3)
    figure(fig, caption, colours=colours)


def _column(history: Any, key: str) -> tuple[list, list]:
    """Steps and values of one column of a `History`, of a list of rows, or of a plain list of numbers."""
    rows = getattr(history, "rows", history)
    if len(rows) and isinstance(rows[0], Mapping):
        rows = [row for row in rows if row.get(key) is not None]
        return [row.get("step", i) for i, row in enumerate(rows)], [float(row[key]) for row in rows]
    return list(range(len(rows))), [float(v) for v in rows]


def curve(
    history: Any,
    floors: Mapping[str, float] | None = None,
    caption: str = "",
    *,
    key: str = "loss",
    ylabel: str = "",
) -> None:
    """Draw a training curve: every step thin, the running mean thick, and named lines such as chance to beat.

    `history` is a `History` (or its rows, or numbers), or a dict {name: history} to compare several.
    """
    runs = history if isinstance(history, Mapping) else {key: history}
    fig, axis = plt.subplots()
    for i, (name, run) in enumerate(runs.items()):
        steps, values = _column(run, key)
        if not values:
            raise ValueError(f"nothing to draw: {name!r} has no column {key!r}")
        colour, window = COLOURS[i % len(COLOURS)], max(1, len(values) // 40)
        total = np.cumsum([0.0, *values])
        ends = np.arange(1, len(values) + 1)
        starts = np.maximum(0, ends - window)
        smooth = (total[ends] - total[starts]) / (ends - starts)
        axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        axis.plot(steps, smooth, _LINES[i % len(_LINES)], color=colour, linewidth=2, label=name)
    for i, level in enumerate((floors or {}).values()):
        axis.axhline(level, color="black", linewidth=1.2, linestyle=_LINES[(i + 1) % len(_LINES)])
    bottom, top = axis.get_ylim()
    for name, level in (floors or {}).items():
        above = [other for other in floors.values() if 0 < other - level < 0.08 * (top - bottom)]
        at = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "top" if above else "bottom"}
        axis.annotate(f"{name} {level:.3g}", (1, level), **at)
        if above:                                                      # its name stands below the line: make room there
            axis.set_ylim(min(bottom, level - 0.1 * (top - bottom)), top)
    axis.set_xlabel("step")
    axis.set_ylabel(ylabel or key)
    if len(runs) > 1:
        axis.legend()
    figure(fig, caption)


def _spectrogram(axis: Any, samples: np.ndarray, rate: int, title: str) -> None:
    window = min(256, max(16, rate // 40), len(samples))
    padded = np.pad(samples, (0, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: max(1, window // 4)]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)).T ** 2
    decibels = 10 * np.log10(power / max(power.max(), 1e-12) + 1e-8)
    extent = (0, len(samples) / rate, 0, rate / 2000)
    axis.imshow(decibels, origin="lower", aspect="auto", extent=extent, vmin=-70, vmax=0, cmap="cividis")
    axis.set_xlabel("time (s)")
    axis.set_ylabel("frequency (kHz)")
    axis.grid(False)
    if title:
        axis.set_title(title, fontsize=10)


def sound(samples: Any, rate: int, caption: str = "", *, title: str = "") -> None:
    """Show a sound: its spectrogram (70 dB deep), its caption, and a player beside it.

    `samples` is a float array or tensor in [-1, 1], one channel, (n,) or (1, n); else ValueError.
    """
    sounds([samples], rate, [title], caption)


def sounds(clips: Sequence, rate: int, titles: Sequence[str] | None = None, caption: str = "") -> None:
    """Show sounds of one rate side by side, to compare them: spectrograms in one figure, then players."""
    if len(clips) == 0:
        raise ValueError("no sounds to show: the list is empty")
    titles = list(titles) if titles is not None else [""] * len(clips)
    if len(titles) != len(clips):
        raise ValueError(f"{len(clips)} sounds but {len(titles)} titles: give one title for each")
    waves = []
    for clip in clips:
        wave = _array(clip).astype(np.float32)
        wave = wave[0] if wave.ndim == 2 and wave.shape[0] == 1 else wave
        if wave.ndim != 1 or wave.size == 0:
            shape = tuple(_array(clip).shape)
            raise ValueError(f"a sound of shape {shape}: give one channel of at least one sample")
        if not np.isfinite(wave).all():
            raise ValueError("this sound has NaN or infinite values: look at what made it")
        waves.append(wave)
    columns = min(3, len(waves))
    rows = -(-len(waves) // columns)
    width = 5.0 if columns == 1 else 3.3
    fig, axes = plt.subplots(rows, columns, figsize=(width * columns, 2.4 * rows), squeeze=False, sharey=True)
    for axis in axes.flat[len(waves) :]:
        axis.axis("off")
    for axis, wave, title in zip(axes.flat, waves, titles):
        _spectrogram(axis, wave, rate, title)
    figure(fig, caption, colours=64)
    if _in_notebook():
        from IPython.display import HTML, display

        box = '<div style="display:inline-block;margin:0 1em 1em 0">'
        cells = [f"{box}{html.escape(t)}<br>{player(w, rate)}</div>" for w, t in zip(waves, titles)]
        display(HTML("".join(cells)))


def player(samples: np.ndarray, rate: int) -> str:
    """The HTML of a player for (n,) floats; louder than [-1, 1] is scaled down, quiet stays quiet."""
    import wave as wavefile

    peak = max(1.0, float(np.abs(samples).max()))
    file = io.BytesIO()
    with wavefile.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(int(rate))
        out.writeframes((samples / peak * 32767).astype("<i2").tobytes())
    data = base64.b64encode(file.getvalue()).decode()
    return (f'<audio controls preload="metadata" src="data:audio/wav;base64,{data}">sound</audio> '
            f"<small>{len(samples) / rate:.2f} s</small>")


def tokens(ids: Any, caption: str = "", *, title: str = "") -> None:
    """Draw a grid of token ids, (rows, columns) of integers, with each number written in its cell."""
    grid = np.atleast_2d(_array(ids))
    if grid.ndim != 2 or not np.issubdtype(grid.dtype, np.integer) or grid.size == 0:
        raise ValueError(f"token ids {grid.shape} of kind {grid.dtype}: give (rows, columns) of integers")
    rows, columns = grid.shape
    fig, axis = plt.subplots(figsize=(0.5 * columns + 0.4, 0.36 * rows + 0.4))
    axis.imshow(grid, cmap="cividis", aspect="auto")
    middle = (int(grid.min()) + int(grid.max())) / 2
    for r, c in np.ndindex(rows, columns):
        colour = "black" if grid[r, c] > middle else "white"
        axis.text(c, r, str(grid[r, c]), ha="center", va="center", fontsize=8, color=colour)
    axis.axis("off")
    axis.set_title(title, fontsize=10)
    figure(fig, caption)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def table(rows: Sequence[Mapping[str, Any]], caption: str = "", *, fold: str = "") -> None:
    """Show a list of dicts with the same keys as a table; floats get three significant digits.

    `fold`: a line that stands there instead, with the table behind it until somebody opens it.
    """
    if not rows:
        raise ValueError("no rows to show: the list is empty")
    names = list(rows[0])
    cells = [[_cell(row.get(name, "")) for name in names] for row in rows]
    if not _in_notebook():
        widths = [max(len(line[i]) for line in [names, *cells]) for i in range(len(names))]
        for line in [names, *cells]:
            print("  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip())
    else:
        from IPython.display import Markdown, display

        lines = [names, ["---"] * len(names), *cells]               # escaped: `<image>` would be taken for a picture
        text = "\n".join("| " + " | ".join(html.escape(word, quote=False) for word in line) + " |" for line in lines)
        around = f"<details><summary>{html.escape(fold)}</summary>\n\n{{}}\n\n</details>" if fold else "{}"
        display(Markdown(around.replace("{}", text)))
    _say(caption)


def pieces(texts: Sequence[str], caption: str = "", *, title: str = "") -> None:
    """Show a text cut in pieces, in four colours in turn; a space is drawn as ␣ and a line feed as ⏎."""
    seen = [t.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") for t in texts]
    plain = f"{title}: {'|'.join(seen)}" if title else "|".join(seen)
    if not _in_notebook():
        print(plain)
    else:
        from IPython.display import display

        colours = ("#cfe4f5", "#fbdcc9", "#cdeadf", "#f5dcea")
        style = "color:#000;padding:1px 2px;border-radius:3px;margin:1px;white-space:pre;font-family:monospace"
        spans = SEPARATOR.join(f'<code style="background:{colours[i % 4]};{style}">{html.escape(t)}</code>'
                               for i, t in enumerate(seen))
        head = f"<b>{html.escape(title)}</b> " if title else ""
        body = f'<p style="line-height:1.9;max-width:60em">{head}{spans}</p>'
        display({"text/html": body, "text/plain": plain}, raw=True)
    _say(caption)
