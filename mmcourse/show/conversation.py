"""A conversation with the model on the page: what was said so far, and what to say, show or play next; or as a figure."""
import base64
import html
import textwrap

import ipywidgets as w
import numpy as np
from matplotlib import pyplot as plt

from mmcourse import checkpoints, show
from mmcourse.assistant import Assistant
from mmcourse.chat import LONGEST_HEARD, Chat, Exchange
from mmcourse.judges.hearing import stack
from mmcourse.media import MAX_SECONDS, Audio, Image, Text
from mmcourse.show.inputs import Canvas, Microphone, Say, Upload, css
from mmcourse.show.panel import NAMES, WORD, compose, shorten
from mmcourse.vocabulary import MODALITIES
from mmcourse.world.prompts import random_prompt
from mmcourse.world.scene import BACKGROUNDS, COUNTS, NOUNS, WORDS
from mmcourse.world.speech import SAMPLE_RATE

EXAMPLES = ("two cats on the left, a sun on the right, blue ground", "make the ground green", "how many cats are there?",
            "tell me: what is on the left?", "say giraffe")
SINGLE = ("two cats on the left, a sun on the right, blue ground, sign K I T E", "a dog on the right, red ground", "umbrella")
MICROPHONE = LONGEST_HEARD - 0.1        # seconds that it records: browsers stop a little late
# Tabs as wide as their titles, in several rows if need be: at 900 pixels two of them read "Upload a". The list of turns begins
# at its end, and stays there when a turn is added: that is what a reversed column does.
STYLE = """<style>
.mmcourse-panel .lm-TabBar-content, .mmcourse-panel .p-TabBar-content {flex-wrap: wrap}
.mmcourse-panel .lm-TabBar-tab, .mmcourse-panel .p-TabBar-tab {flex: 0 0 auto !important; min-width: max-content !important}
.mmcourse-turns {display: flex; flex-direction: column-reverse; max-height: 34em; overflow: auto}
.mmcourse-turns > * {flex: 0 0 auto; overflow: visible}
.mmcourse-said {display: flex; gap: 0 1em; padding: 6px 10px; line-height: 1.5; overflow-wrap: anywhere}
.mmcourse-said > b {flex: 0 0 3.5em}
.mmcourse-said img {image-rendering: pixelated; margin: 2px 0}
.mmcourse-said audio {height: 34px; max-width: 100%; vertical-align: middle}
.mmcourse-model {background: rgba(128, 128, 128, 0.13)}
</style>"""


# ---------------------------------------------------------------- what was said, as HTML

def part_html(part) -> str:
    """A Text, a picture as the model sees or painted it, or a sound as it hears or speaks it, with a player."""
    if isinstance(part, Image):
        return f'<img alt="a picture" width="192" src="data:image/png;base64,{base64.b64encode(part._repr_png_()).decode()}">'
    return show.player(part.at(), SAMPLE_RATE) if isinstance(part, Audio) else html.escape(str(part))


def note_html(text: str) -> str:
    """A small line."""
    return f"<small><em>{html.escape(text)}</em></small>"


def said_html(who: str, *pieces: str) -> str:
    """What `you` or the `model` said: its pieces below each other, beside who it was."""
    return (f'<div class="mmcourse-said mmcourse-{who}"><b>{who}</b><div>'
            + "".join(f"<div>{piece}</div>" for piece in pieces) + "</div></div>")


class OneByOne(Chat):
    """Turns of a model that has not learned to converse: each is answered by itself (`Assistant.generate`)."""

    def say(self, *parts, want: str | None = None, seed: int = 0, **how):
        """As `Chat.say`; a picture if nothing else is wanted."""
        want, a = want or "image", self.assistant
        given, remarks = a.read(parts, want)
        answer = a.render(a.tokens(given, want, seed, **how), seed=seed)
        object.__setattr__(answer, "remarks", remarks)                  # a Text is frozen
        self.turns.append(Exchange(tuple(given), answer))
        return answer


# ---------------------------------------------------------------- what was said, as a figure

def heard(turn: Exchange) -> str:
    """What a judge hears in a spoken answer: of a single word of the world the judge of words, else the listener to phrases,
    which is weak on single words."""
    sound = turn.answer.at(SAMPLE_RATE)
    if turn.thought in WORDS:
        return checkpoints.load("word_judge").hear(stack([sound]))[0]
    return checkpoints.load("phrase_listener").hear([sound])[0]


def boxes(talk: Chat, caption: str = "", columns: int = 4) -> None:
    """The turns of a conversation, a box for each: above it what was asked, in it the answer. In the box of a spoken answer
    stands what was to be said and what is `heard`, and its player is below."""
    lines = -(-len(talk.turns) // columns)
    fig, axes = plt.subplots(lines, columns, figsize=(2.4 * columns, 2.7 * lines), squeeze=False)
    sounds = []
    for axis in axes.flat:
        axis.axis("off")
    for number, (axis, turn) in enumerate(zip(axes.flat, talk.turns), 1):
        asked = " ".join(str(part) if isinstance(part, Text) else f"[{type(part).__name__.lower()}]" for part in turn.given)
        asked += "".join(f"\n→ “{words}”" for words in turn.understood)
        title = [line for part in f"{number}. {asked}".split("\n") for line in textwrap.wrap(part, 30)]
        axis.set_title("\n".join(title), fontsize=8.5)
        if isinstance(turn.answer, Image):
            axis.imshow(turn.answer.pixels, interpolation="nearest")
            continue
        words = str(turn.answer) if isinstance(turn.answer, Text) else ""
        if isinstance(turn.answer, Audio):
            sounds.append((f"{number}. {asked}", turn.answer))
            words = f"“{turn.thought}”\nheard:\n{heard(turn)}"
        axis.text(0.5, 0.5, "\n".join(line for part in words.split("\n") for line in textwrap.wrap(part, 20)), ha="center",
                  va="center", fontsize=11, transform=axis.transAxes)
    show.figure(fig, caption)
    if sounds and show._in_notebook():
        from IPython.display import HTML, display
        display(HTML("".join(f"<div>{html.escape(title)}<br>{show.player(sound.samples, sound.rate)}</div>"
                             for title, sound in sounds)))


# ---------------------------------------------------------------- the panel

def required(value, otherwise: str):
    """`value`, or ValueError with the sentence `otherwise` if there is none."""
    if not value:
        raise ValueError(otherwise)
    return value


def begun(assistant: Assistant) -> Chat:
    """A new conversation."""
    return assistant.chat() if assistant.converses else OneByOne(assistant)


class Conversation:
    """The turns so far; a line to type in, with examples; five ways to show or play something with it. `turns.children` has a
    widget for each of the turns of `chat`."""

    def __init__(self, assistant: Assistant):
        self.assistant, self.chat = assistant, begun(assistant)
        self.turns, self.wrong = w.VBox(), w.HTML()
        self.say = Say(self.send, placeholder="a picture in words, a change to it, a question about it; Enter sends it")
        free = [("as it sees fit", "")] if assistant.converses else []
        self.want = w.Dropdown(options=[*free, *((NAMES[m], m) for m in MODALITIES)], value="" if free else "image",
                               description="answer in")
        self.new = w.Button(description="new conversation", icon="eraser", tooltip="forget all that was said",
                            layout=w.Layout(width="auto"))
        self.new.on_click(lambda _: self.forget())
        examples = EXAMPLES if assistant.converses else SINGLE
        self.examples = [w.Button(description=text, layout=w.Layout(width="auto")) for text in examples]
        for button in self.examples:
            button.on_click(lambda pressed: self.say.write(pressed.description))
        self.random = w.Button(description="another sentence", icon="random", layout=w.Layout(width="auto"),
                               tooltip="a random picture in words")
        self.random.on_click(lambda _: self.say.write(random_prompt(np.random.default_rng())))
        row, shown = w.Layout(flex_flow="row wrap"), w.Box([self.turns])
        shown.add_class("mmcourse-turns")
        self.box = w.VBox([w.HTML(STYLE), shown, self.wrong, self.say, w.HBox([self.want, self.new], layout=row),
                           w.HBox([*self.examples, self.random], layout=row), w.Label("Show or play with it:"),
                           self.attachments()])
        self.box.add_class("mmcourse-panel")

    def attachments(self) -> w.Tab:
        """The tabs: what may go with the text, or alone."""
        things, counts = [("nothing", ""), *((n, n) for n in NOUNS)], list(COUNTS)
        self.scene = {"left": w.Dropdown(options=things, value="cat", description="left"),
                      "left_count": w.Dropdown(options=counts, description="how many"),
                      "right": w.Dropdown(options=things, value="", description="right"),
                      "right_count": w.Dropdown(options=counts[:2], description="how many"),
                      "background": w.Dropdown(options=list(BACKGROUNDS), value="blue", description="ground"),
                      "sign": w.Text("", description="sign", placeholder="3 to 5 letters, or nothing")}
        self.picture, self.sound = Upload(kind="picture"), Upload(kind="sound")
        self.canvas, self.microphone = Canvas(), Microphone(seconds=MICROPHONE)
        behind = w.Dropdown(options=[(name, css(rgb)) for name, rgb in BACKGROUNDS.items()], value=self.canvas.background,
                            description="ground")
        w.link((behind, "value"), (self.canvas, "background"))
        ways = {"Nothing": w.HTML("Words alone."), "Put together": w.VBox(list(self.scene.values())),
                "Draw": w.VBox([behind, self.canvas]), "Upload a picture": self.picture, "Record": self.microphone,
                "Upload a sound": self.sound}
        self.tabs = w.Tab(list(ways.values()), titles=list(ways), selected_index=0)
        return self.tabs

    def attached(self) -> tuple[Image | Audio | None, str]:
        """What the open tab holds, and a remark on it. ValueError if it is not there or cannot be read."""
        way = self.tabs.titles[self.tabs.selected_index or 0]
        if way == "Nothing":
            return None, ""
        if way == "Put together":
            return compose(**{name: widget.value for name, widget in self.scene.items()}), ""
        if way == "Draw":
            return Image(required(self.canvas.file, "nothing drawn yet: draw with the mouse or a finger first")), ""
        if way == "Upload a picture":
            return Image(required(self.picture.file, "no file yet: press “choose a picture” first")), ""
        file = (required(self.microphone.file, "nothing recorded yet: press “record” first") if way == "Record"
                else required(self.sound.file, "no file yet: press “choose a sound” first"))
        return shorten(Audio(file), *((LONGEST_HEARD, LONGEST_HEARD) if self.assistant.converses else (MAX_SECONDS, WORD)))

    def send(self) -> None:
        """Say what is set now. What goes wrong, whatever it is, is said in one sentence, and all is as it was before."""
        before, now, text, self.wrong.value = self.turns.children, self.chat.now, self.say.text, ""
        try:
            return self.take_turn(text)
        except KeyboardInterrupt:
            wrong = "Stopped before the answer was there."
        except (ValueError, TypeError, OSError) as error:
            wrong = str(error)
        except Exception as error:                                      # nobody foresaw this: a sentence all the same
            wrong = (f"The model could not answer ({type(error).__name__}: {str(error)[:200]}). Say something else; if that "
                     "fails too, run this cell again.")
        self.turns.children, self.wrong.value = before, f'<span role="alert">⚠ {html.escape(wrong)}</span>'
        del self.chat.turns[len(before):]
        self.chat.now = now
        self.say.write(text)

    def take_turn(self, text: str) -> None:
        """Say it and show it, then the answer. Errors as `Chat.say`."""
        thing, remark = self.attached()
        words = [Text(text)] if text.strip() else []
        things = [] if thing is None else [thing]
        # As in the conversations that it learned from: a picture and what is said of it, `write down what I say` and a sound.
        parts = required(words + things if isinstance(thing, Audio) else things + words,
                         "nothing to send yet: type something, or choose what to show or play")
        seen = [Image(part.square()[0]) if isinstance(part, Image) else part for part in parts]
        turn = w.HTML(said_html("you", *map(part_html, seen), *([note_html(remark)] if remark else [])))
        self.turns.children += (turn,)
        self.say.write("")
        answer = self.chat.say(*parts, want=self.want.value or None)
        last = self.chat.turns[-1]
        notes = [f"understood: “{words}”" for words in last.understood]
        notes += [f"to itself: “{last.thought}”"] if last.thought else []
        turn.value += said_html("model", *map(note_html, notes), part_html(answer), *map(note_html, answer.remarks))
        self.tabs.selected_index = 0

    def forget(self) -> None:
        """A new conversation."""
        self.chat, self.turns.children, self.wrong.value = begun(self.assistant), (), ""
