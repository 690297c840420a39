"""Asking the model by hand: a question and its answers side by side, and a panel to converse with it.

Sequences of tokens are drawn here too, coloured by modality. Nothing here trains anything.
"""
import base64
import html
import textwrap
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.assistant import Assistant
from mmcourse.files import read_json
from mmcourse.matrix import cell, interval, pair_rows, short_rows
from mmcourse.media import MAX_SECONDS, Audio, Image, Text
from mmcourse.paths import RESULTS
from mmcourse.vocabulary import SPECIAL, Vocabulary
from mmcourse.world.pictures import draw
from mmcourse.world.scene import COUNTS, Group, Scene

COLOURS = {"text": "#cfe4f5", "image": "#fbdcc9", "audio": "#cdeadf", "special": "#333333"}
NAMES = {"text": "text", "image": "picture", "audio": "sound"}
WORD = 0.9                              # seconds that hold any spoken word
WHO = {"vq": "plain decoder", "diffusion": "diffusion decoder", "diffusion128": "diffusion, 128x128"}


# ---------------------------------------------------------------- a question and its answers

def loudest(sound: Audio, seconds: float = WORD) -> Audio:
    """The part of a long recording that most likely holds what was said: the `seconds` with the most energy."""
    n = int(seconds * sound.rate)
    if len(sound.samples) <= n:
        return sound
    energy = np.concatenate([[0.0], np.square(sound.samples - sound.samples.mean(),
                                              dtype=np.float64).cumsum()])
    return sound.cut(int((energy[n:] - energy[:-n]).argmax()) / sound.rate, seconds)


def shorten(sound: Audio, longest: float = MAX_SECONDS, keep: float = WORD) -> tuple[Audio, str]:
    """A sound that the model can listen to, and what was done to it ("" if nothing): of more than `longest` seconds the loudest
    `keep`, by default about a word."""
    if sound.seconds <= longest:
        return sound, ""
    part = loudest(sound, keep)
    return part, f"{sound.seconds:.1f} s is more than I listen to at once: these are the loudest {part.seconds:.1f} s."


def cards(things: list[tuple[str, object]], caption: str = "") -> None:
    """Draw (title, Text | Image | Audio) side by side; sounds get a player below."""
    fig, axes = plt.subplots(1, len(things), figsize=(2.3 * len(things), 2.3), squeeze=False)
    sounds = []
    for axis, (title, thing) in zip(axes[0], things, strict=True):
        if isinstance(thing, Audio):
            show._spectrogram(axis, thing.samples, thing.rate, "")
            sounds.append((title, thing))
        else:
            axis.axis("off")
        if isinstance(thing, Image):
            axis.imshow(thing.pixels, interpolation="nearest")
        if isinstance(thing, Text):
            lines = textwrap.wrap(thing.text.replace("$", r"\$"), 22)[:8]
            axis.text(0.5, 0.5, "\n".join(lines), ha="center", va="center", fontsize=10,
                      transform=axis.transAxes)
        axis.set_title(title, fontsize=9)
    show.figure(fig, caption)
    if sounds and show._in_notebook():
        from IPython.display import HTML, display
        box = '<div style="display:inline-block;margin:0 1em 1em 0">'
        display(HTML("".join(f"{box}{html.escape(t)}<br>{show.player(s.samples, s.rate)}</div>"
                             for t, s in sounds)))


def ask(assistant: Assistant, given, want: str, seed: int = 0, decoders: tuple[str, ...] | None = None,
        judge=None, caption: str = "", change: str = "", **sampling):
    """Ask once; draw the question beside its answer. A picture is painted by both decoders, from
    the same tokens.

    Args:
        given: a string, Text, Image or Audio.
        judge: a `WordJudge`: what it hears in a spoken answer is written above it.
        change: an instruction for a picture, such as `make the ground green`: the answer is the
            picture, changed.

    Returns:
        the answer (a picture: as the first of the decoders paints it). Errors as `Assistant.generate`.
    """
    given = Text(given) if isinstance(given, str) else given
    parts, remarks = assistant.read([given, Text(change)] if change else [given], want)
    check_change(change, given, want)
    read = " ".join(part.text for part in parts if isinstance(part, Text))
    for remark in [*remarks, f"So I read: “{read}”."] if remarks else ():
        show.caption(remark)
    segment = assistant.tokens(parts, want, seed, **sampling)
    asked = {Text: "text", Image: "image", Audio: "audio"}[type(given)]
    if decoders is None:
        decoders = ("vq", "diffusion") if assistant.decoder is not None else ("vq",)
    answers = [assistant.render(segment, decoder=d, seed=seed)
               for d in (decoders if want == "image" else (None,))]
    titles = [f"out: {WHO[d]}" for d in decoders] if want == "image" else [f"out: {NAMES[want]}"]
    if judge is not None and want == "audio":
        titles = [f"out: sound; the judge hears\n“{judge.hear(answers[0].samples[None])[0]}”"]
    shown = Image(given.square()[0]) if isinstance(given, Image) else given
    said = caption or f"{NAMES[asked]} in, {NAMES[want]} out. ".capitalize() + " → ".join(
        f"“{x}”" if isinstance(x, Text) else NAMES[n] for x, n in ((given, asked), (answers[0], want)))
    said = f"A picture and “{change}” in, the changed picture out." if change and not caption else said
    cards([(f"in: {NAMES[asked]}", shown), *zip(titles, answers, strict=True)], said)
    object.__setattr__(answers[0], "remarks", remarks)
    return answers[0]


def check_change(change: str, given, want: str) -> None:
    """ValueError for an instruction without a picture to change."""
    if change and not (isinstance(given, Image) and want == "image"):
        raise ValueError("an instruction goes with a picture, and the answer is a picture: choose both, or "
                         "leave it empty")


def compose(left: str = "cat", left_count: str = "one", right: str = "", right_count: str = "one",
            background: str = "blue", sign: str = "") -> Image:
    """A picture put together by hand. Three or four objects fill the picture, so they stand alone.

    ValueError if nothing stands in it, or if the sign is not 3 to 5 letters.
    """
    counts = [COUNTS.index(c) + 1 for c in (left_count, right_count)]
    chosen = [(n, c, p) for n, c, p in zip((left, right), counts, ("left", "right"), strict=True) if n]
    if not chosen:
        raise ValueError("the picture is empty: choose something for the left or for the right")
    if len(chosen) == 2 and max(counts) > 2:
        raise ValueError("three or four things fill the whole picture: choose nothing for the other side, or "
                         "fewer of them")
    groups = tuple(Group(n, c, p if c <= 2 else "") for n, c, p in chosen)
    return Image(draw(Scene(groups, background, sign.strip().upper())))


# ---------------------------------------------------------------- the panel

def panel(assistant: Assistant) -> None:
    """Show a conversation with the model. On a page without a kernel a picture and a sentence stand in its place."""
    from IPython.display import display

    from mmcourse.show.conversation import Conversation
    bundle = Conversation(assistant).box._repr_mimebundle_()
    view = {key: data for key, data in bundle.items() if "widget-view" in key}
    sentence = ("[A conversation with the model: type; put together, draw or upload a picture; record or upload a sound. It "
                "needs a running kernel: open this page in JupyterLab and run the cell.]")
    display({**view, "image/png": base64.b64encode(compose("cat", "two", "sun", "one", "blue", "KITE")._repr_png_()).decode(),
             "text/plain": sentence}, raw=True, metadata={"image/png": {"alt": sentence}})
    show.caption("The conversation needs a running kernel. Where there is none, a picture stands in its place.")


# ---------------------------------------------------------------- the matrix

def matrix(path=RESULTS / "evaluate.json", every: bool = False) -> dict:
    """Show the measured any-to-any matrix and return it; {} with a sentence if nobody has measured it yet.

    Twelve rows in plain words, or with `every` each row under its own key.
    """
    if not Path(path).exists():
        show.caption("No measured matrix is here yet: `mmcourse evaluate --n 500 --seed 1000 --save` makes one.")
        return {}
    result = read_json(path)
    rows = every_row(result["matrix"]) if every else short_rows(result["matrix"])
    show.table(rows, f"The any-to-any matrix: n = {result['n']}, {result['split']} seed {result['seed']}. "
                     "(r) is a reference, another listener on the question itself: it is no ceiling, and "
                     "nothing is divided by it.")
    return result["matrix"]


def every_row(matrix: dict) -> list[dict]:
    """The matrix of `mmcourse.evaluate` as rows for a table, each under its own key."""
    return [{"direction": direction.replace("->", " → "), "measure": measure, "score": cell(row["score"]),
             "95 %": interval(row), "ceiling": cell(row["ceiling"]), "reference": cell(row["reference"]),
             "chance": cell(row["chance"]), "n": row["n"]}
            for direction, measures in matrix.items() for measure, row in measures.items()
            if isinstance(row, dict)]


def said_first(matrix: dict) -> None:
    """Words first against the direct way, with eight drafts and with one: one view of the question, one sampling.

    With one draft only the words differ; with eight also how a draft is chosen (`mmcourse.rerank`).
    """
    show.table(pair_rows(matrix), "Share of right answers with its 95 % interval. Compare the columns with the same number "
               "of drafts: one view of the question, the same guidance and temperature. With one draft only the words "
               "differ; with eight also how a draft is chosen.")


# ---------------------------------------------------------------- sequences of tokens

def token_line(ids, vocabulary: Vocabulary, bpe=None, caption: str = "") -> None:
    """A sequence as one line, coloured by modality: blue text, orange picture, green sound, black boundaries.

    In a notebook, hold the pointer over a token to see what it is.
    """
    spans, plain, start = [], [], 0
    for place, token in enumerate(int(i) for i in ids):
        kind = vocabulary.modality(token)
        if kind == "special":
            start, word, hint = place + 1, SPECIAL[token], "boundary token" if token else "padding"
        else:
            index = place - start
            own = token - vocabulary.allowed(kind, index).start
            word, hint = str(own), f"picture token {index}: row {index // 8}, column {index % 8}"
            if kind == "text":
                word = bpe.decode([own]).replace(" ", "␣") if bpe is not None else word
                hint = f"text token {own}"
            elif kind == "audio":
                frame, level = divmod(index, vocabulary.audio_levels)
                hint = f"frame {frame}, {frame * 40} ms, level {level}"
        style = f"background:{COLOURS[kind]};color:{'#fff' if kind == 'special' else '#000'}"
        spans.append(f'<code title="{html.escape(hint)}; id {token}" style="{style};padding:1px 3px;'
                     f'margin:1px;border-radius:3px;display:inline-block">{html.escape(word)}</code>')
        plain.append(word)
    if show._in_notebook():
        from IPython.display import display
        body = f'<p style="line-height:1.7;max-width:62em;font:12px monospace">{show.SEPARATOR.join(spans)}</p>'
        display({"text/html": body, "text/plain": " ".join(plain)}, raw=True)
    else:
        print(" ".join(plain))
    show.caption(caption)
