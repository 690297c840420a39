"""Asking the model by hand: a question and its answers side by side, and a panel of inputs that does so too.

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
from mmcourse.vocabulary import MODALITIES, SPECIAL, Vocabulary
from mmcourse.world.pictures import draw
from mmcourse.world.prompts import random_prompt
from mmcourse.world.scene import BACKGROUNDS, COUNTS, NOUNS, Group, Scene

COLOURS = {"text": "#cfe4f5", "image": "#fbdcc9", "audio": "#cdeadf", "special": "#333333"}
NAMES = {"text": "text", "image": "picture", "audio": "sound"}
EXAMPLES = ("two cats on the left, a sun on the right, blue ground, sign KITE", "a dog on the right, red ground",
            "umbrella")
# Tabs as wide as their titles, in several rows if need be: at 900 pixels two of them read "Upload a".
TABS = ("<style>.mmcourse-panel .lm-TabBar-content, .mmcourse-panel .p-TabBar-content {flex-wrap: wrap}"
        ".mmcourse-panel .lm-TabBar-tab, .mmcourse-panel .p-TabBar-tab "
        "{flex: 0 0 auto !important; min-width: max-content !important}</style>")
WHO = {"vq": "plain decoder", "diffusion": "diffusion decoder", "diffusion128": "diffusion, 128x128"}


# ---------------------------------------------------------------- a question and its answers

def loudest(sound: Audio, seconds: float = 0.9) -> Audio:
    """The part of a long recording that most likely holds a word: the `seconds` with the most energy."""
    n = int(seconds * sound.rate)
    if len(sound.samples) <= n:
        return sound
    energy = np.concatenate([[0.0], np.square(sound.samples - sound.samples.mean(),
                                              dtype=np.float64).cumsum()])
    return sound.cut(int((energy[n:] - energy[:-n]).argmax()) / sound.rate, seconds)


def shorten(sound: Audio) -> tuple[Audio, str]:
    """A sound that the model can listen to, and what was done to it ("" if nothing)."""
    if sound.seconds <= MAX_SECONDS:
        return sound, ""
    part = loudest(sound)
    return part, f"{sound.seconds:.1f} s is more than one word: these are the loudest {part.seconds:.1f} s."


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

def required(value, otherwise: str):
    """`value`, or ValueError with the sentence `otherwise` if there is none."""
    if not value:
        raise ValueError(otherwise)
    return value


class Panel:
    """Six ways to ask (type; put together, draw or upload a picture; record or upload a sound), one button,
    any modality back."""

    def __init__(self, assistant: Assistant):
        import ipywidgets as w

        from mmcourse.show.inputs import AskButton, Canvas, Microphone, Upload, css
        self.assistant, wide = assistant, w.Layout(width="98%", max_width="34em")
        self.examples = [w.Button(description=text, layout=w.Layout(width="auto")) for text in EXAMPLES]
        self.random = w.Button(description="another sentence", icon="random", layout=w.Layout(width="auto"),
                               tooltip="a random sentence that the model understands")
        for button in self.examples:
            button.on_click(lambda pressed: setattr(self.text, "value", pressed.description))
        self.random.on_click(lambda _: setattr(self.text, "value", random_prompt(np.random.default_rng())))
        self.text = w.Textarea("two cats on the left, a sun on the right, blue ground, sign KITE",
                               layout=wide)
        things, counts = [("nothing", ""), *((n, n) for n in NOUNS)], list(COUNTS)
        self.scene = {"left": w.Dropdown(options=things, value="cat", description="left"),
                      "left_count": w.Dropdown(options=counts, description="how many"),
                      "right": w.Dropdown(options=things, value="", description="right"),
                      "right_count": w.Dropdown(options=counts[:2], description="how many"),
                      "background": w.Dropdown(options=list(BACKGROUNDS), value="blue", description="ground"),
                      "sign": w.Text("", description="sign", placeholder="3 to 5 letters, or nothing")}
        self.picture, self.sound = Upload(kind="picture"), Upload(kind="sound")
        self.canvas, self.microphone = Canvas(), Microphone()
        behind = w.Dropdown(options=[(name, css(rgb)) for name, rgb in BACKGROUNDS.items()],
                            value=self.canvas.background, description="ground")
        w.link((behind, "value"), (self.canvas, "background"))
        typed = w.VBox([self.text, w.HBox([*self.examples, self.random],
                                          layout=w.Layout(flex_flow="row wrap"))])
        ways = {"Type": typed, "Put together": w.VBox(list(self.scene.values())),
                "Draw": w.VBox([behind, self.canvas]), "Upload a picture": self.picture,
                "Record": self.microphone, "Upload a sound": self.sound}
        self.tabs = w.Tab(list(ways.values()), titles=list(ways))
        self.change = w.Text("", description="change it", layout=wide,
                             placeholder="with a picture, if you like: make the ground green, remove the "
                                         "sign, ...")
        self.want = w.Dropdown(options=[(NAMES[m], m) for m in MODALITIES], value="image",
                               description="answer in")
        self.seed = w.BoundedIntText(0, min=0, max=9999, description="seed")
        self.button, self.out = AskButton(self.answer), w.Output()
        self.box = w.VBox([w.HTML(TABS), self.tabs, self.change, w.HBox([self.want, self.seed]), self.button,
                           self.out])
        self.box.add_class("mmcourse-panel")

    def question(self) -> tuple[object, str]:
        """What is asked with the open tab, and a remark on it. ValueError if it is not there
        or cannot be read."""
        way = self.tabs.titles[self.tabs.selected_index or 0]
        if way == "Type":
            return Text(self.text.value), ""
        if way == "Put together":
            return compose(**{k: v.value for k, v in self.scene.items()}), ""
        if way == "Draw":
            return Image(required(self.canvas.file,
                                  "nothing drawn yet: draw with the mouse or a finger first")), ""
        if way == "Record":
            return shorten(Audio(required(self.microphone.file,
                                          "nothing recorded yet: press “record a word” first")))
        upload, kind = (self.picture, Image) if way == "Upload a picture" else (self.sound, Audio)
        found = kind(required(upload.file, f"no file yet: press “choose a {upload.kind}” first"))
        return shorten(found) if kind is Audio else (found, "")

    def answer(self) -> None:
        """Ask with what is set now. What goes wrong, whatever it is, is said in one sentence."""
        self.out.clear_output(wait=True)
        with self.out:
            try:
                given, remark = self.question()
                if remark:
                    show.caption(remark)
                self.ask(given)
            except KeyboardInterrupt:
                show.caption("⚠ Stopped before the answer was there.")
            except (ValueError, TypeError, OSError) as error:
                show.caption(f"⚠ {error}")
            except Exception as error:                                  # nobody foresaw this: a sentence all the same
                show.caption(f"⚠ The model could not answer ({type(error).__name__}: {str(error)[:200]}). Ask "
                             "something else; if that fails too, run this cell again.")

    def ask(self, given) -> None:
        """Ask, and show what the model said to itself before it answered."""
        change, want, seed = self.change.value.strip(), self.want.value, self.seed.value
        check_change(change, given, want)
        first = self.assistant.said_first([given, Text(change)] if change else [given], want, seed)
        self.button.status = f"It says to itself: “{first}” ..." if first else "The answer is being made ..."
        ask(self.assistant, given, want, seed, change=change)
        if first:
            show.caption(f"To itself it said: “{first}”.")


def panel(assistant: Assistant) -> None:
    """Show the panel. On a page without a kernel a picture and a sentence stand in its place."""
    from IPython.display import display
    bundle = Panel(assistant).box._repr_mimebundle_()
    view = {key: data for key, data in bundle.items() if "widget-view" in key}
    sentence = ("[The panel: type; put together, draw or upload a picture; record or upload a sound. It needs a "
                "running kernel: open this page in JupyterLab and run the cell.]")
    display({**view, "image/png": base64.b64encode(compose("cat", "two", "sun", "one", "blue", "KITE")._repr_png_()).decode(),
             "text/plain": sentence}, raw=True, metadata={"image/png": {"alt": sentence}})
    show.caption("The panel needs a running kernel. Where there is none, a picture stands in its place.")


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
