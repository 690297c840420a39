"""Asking by hand and conversing: every kind of turn is answered and shown, what cannot be done is said, and nothing is lost."""
import base64
import html
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pillow

from mmcourse import checkpoints, show
from mmcourse.assistant import Assistant
from mmcourse.chat import LONGEST_HEARD, Exchange
from mmcourse.judges.hearing import LENGTH
from mmcourse.media import MAX_SECONDS, Audio, Image, Text
from mmcourse.show.conversation import Conversation, boxes
from mmcourse.show.inputs import Canvas, Microphone, Say, Upload
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import MODALITIES
from mmcourse.world.pictures import draw
from mmcourse.world.scene import Group, Scene


@pytest.fixture
def said(monkeypatch):
    """Every caption that is shown."""
    heard = []
    monkeypatch.setattr(show, "_say", heard.append)
    return heard


@pytest.fixture(scope="module")
def talker(parts):
    """An untrained model with room for a conversation."""
    bpe, vqvae, codec, transformer, vocabulary = parts
    return Assistant(bpe, vqvae, codec, Transformer(**{**transformer.config, "context": 512}).eval(), vocabulary,
                     converses=True)


@pytest.fixture
def panel(talker):
    """A conversation in which every tab holds something, and the open one nothing."""
    panel = Conversation(talker)
    panel.picture.file, panel.sound.file, panel.canvas.file, panel.microphone.file = png(), wav(tone(0.4)), png(), wav(tone(0.4))
    return panel


def say(panel, text="", tab=0, want="text") -> str:
    """Take a turn; returns what then stands on the page, the last turn or what was wrong, without what is in files."""
    panel.tabs.selected_index, panel.want.value, panel.say.text = tab, want, text
    panel.say.click()
    assert not panel.say.busy and panel.say.status == ""
    page = panel.wrong.value or panel.turns.children[-1].value
    return re.sub("base64,[^\"]+", "", page)


def png(size=(9, 7)) -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", size, "red").save(out, "PNG")
    return out.getvalue()


def wav(samples) -> bytes:
    import soundfile
    out = io.BytesIO()
    soundfile.write(out, samples, 8000, format="WAV")
    return out.getvalue()


def tone(seconds):
    return 0.3 * np.sin(np.arange(int(8000 * seconds)) / 5)


@pytest.mark.parametrize("want", MODALITIES)
@pytest.mark.parametrize("given", ["cat", Image(np.zeros((5, 9, 3), np.uint8)), Audio(tone(0.4), 8000)], ids=str)
def test_ask_draws_question_and_answer(tiny, said, given, want):
    answer = show.panel.ask(tiny, given, want, seed=2, temperature=1.0)
    assert type(answer).__name__.lower() == want
    assert len(said) == 1 and "in, " in said[0] and "→" in said[0]


def test_both_decoders_paint_the_same_tokens(tiny, said, monkeypatch):
    drawn, painted = [], []
    monkeypatch.setattr(show.panel, "cards", lambda things, caption: drawn.extend(title for title, _ in things))
    monkeypatch.setattr(tiny, "decoder", object())
    monkeypatch.setattr(tiny, "render", lambda segment, decoder="vq", seed=0: painted.append((segment, decoder)) or Text("x"))
    show.panel.ask(tiny, "a cat", "image")
    assert drawn == ["in: text", "out: plain decoder", "out: diffusion decoder"]
    assert painted[0][0] == painted[1][0] and [d for _, d in painted] == ["vq", "diffusion"]


def test_a_long_recording_is_cut_to_its_loudest_part():
    quiet = 0.01 * np.random.default_rng(0).normal(size=8000 * 20)
    quiet[8000 * 12:8000 * 12 + 6400] += tone(0.8)
    for limits, seconds in (((), 0.9), ((LONGEST_HEARD, LONGEST_HEARD), LONGEST_HEARD)):
        part, remark = show.panel.shorten(Audio(quiet, 8000), *limits)
        assert abs(part.seconds - seconds) < 0.01
        assert remark == f"20.0 s is more than I listen to at once: these are the loudest {seconds} s."
        assert np.square(part.samples).sum() > 0.9 * np.square(tone(0.8)).sum(), "what was said is in the part"
    assert show.panel.shorten(Audio(tone(MAX_SECONDS), 8000))[1] == ""
    assert show.panel.shorten(Audio(tone(LONGEST_HEARD), 8000), LONGEST_HEARD, LONGEST_HEARD)[1] == ""


def test_compose_draws_the_scene():
    both = show.panel.compose("cat", "one", "sun", "two", "red", "kite")
    assert (both.pixels == draw(Scene((Group("cat", 1, "left"), Group("sun", 2, "right")), "red", "KITE"))).all()
    four = show.panel.compose("", right="dog", right_count="four", background="grey")
    assert (four.pixels == draw(Scene((Group("dog", 4),), "grey"))).all()


def test_token_line_names_every_token(tiny, capsys):
    v = tiny.vocabulary
    ids = v.pack([tiny.segment("a cat"), tiny.segment(Audio(tone(0.4), 8000))])
    show.panel.token_line(ids, v, tiny.bpe, "a row")
    words = capsys.readouterr().out.splitlines()[0].split(" ")
    assert words[:4] == ["<text>", "␣a", "␣cat", "</text>"] and words[4] == "<audio>" and len(words) == len(ids)


def test_the_matrix_is_shown_in_plain_words_or_row_by_row(tmp_path, said):
    def entry(score, n=9):
        return {"score": score, "low": score, "high": score, "ceiling": 0.9, "reference": None, "chance": 0.01, "n": n}
    measured = {"text->image": {"object": entry(0.45)}, "decoder:image": {"fd_plain": 1.2},
                "image->speech": {k: entry(0.5) for k in ("word", "word_single", "word_direct", "word_direct_single")}}
    rows = show.panel.every_row(measured)
    assert rows[0]["direction"] == "text → image" and rows[0]["score"] == "0.450" and len(rows) == 5
    (tmp_path / "found.json").write_text(json.dumps({"n": 9, "seed": 1000, "split": "test", "matrix": measured}))
    assert show.panel.matrix(tmp_path / "found.json") == measured == show.panel.matrix(tmp_path / "found.json", every=True)
    assert "test seed 1000" in said[-1] and "nothing is divided by it" in said[-1]
    show.panel.said_first(measured)
    assert "With one draft only the words differ" in said[-1]
    assert show.panel.matrix(tmp_path / "none.json") == {} and "mmcourse evaluate --n 500 --seed 1000 --save" in said[-1]


def test_the_gallery_draws(tiny, said):
    from mmcourse.gallery import draw_gallery, held_out_scenes
    from mmcourse.world.scene import is_held_out
    assert all(map(is_held_out, held_out_scenes(5, 0)))
    assert len(draw_gallery(tiny, seed=1).axes) == 18


@pytest.mark.parametrize("kind", [Canvas, Microphone, Upload])
def test_what_the_page_sends_arrives_and_can_be_taken_back(kind):
    widget = kind()
    assert widget.file == b"" and widget.name == ""
    widget._handle_custom_msg({"name": "cat.png"}, [memoryview(b"a file")])
    assert widget.file == b"a file" and widget.name == "cat.png"
    widget._handle_custom_msg({}, [])
    assert widget.file == b"", "an emptied board holds nothing"
    assert kind().file == b"", "one widget's file is not another's"


def test_a_picture_is_changed_by_an_instruction(tiny, said):
    picture = show.panel.compose("cat")
    show.panel.ask(tiny, picture, "image", change="make the ground green")
    assert "the changed picture out" in said[-1]
    for given, want in ((picture, "text"), ("a cat", "image")):
        with pytest.raises(ValueError, match="an instruction goes with a picture"):
            show.panel.ask(tiny, given, want, change="make the ground green")


def test_what_was_not_understood_is_shown_above_the_answer(tiny, said):
    answer = show.panel.ask(tiny, "2 red CATS and a zebra", "image", temperature=1.0)
    assert [line[:20] for line in said[:3]] == ["“red” before “cats” ", "I know no “zebra” (n", "Where do the two sta"]
    assert said[3] == "So I read: “two cats on the left”." and "→" in said[4] and answer.remarks == tuple(said[:3])


# ---------------------------------------------------------------- a conversation

def test_each_turn_of_a_conversation_has_a_box(monkeypatch):
    drawn = []
    monkeypatch.setattr(show, "figure", lambda fig, caption="": drawn.append((fig, caption)))
    monkeypatch.setattr(checkpoints, "load", lambda name: SimpleNamespace(hear=lambda clips: [f"{len(clips[0])} samples"]))
    sound = Audio(np.random.default_rng(0).normal(size=4000).clip(-1, 1) * 0.1, 8000)
    answers = [Image(np.zeros((64, 64, 3), np.uint8)), Text("two"), sound, sound, Text("five")]
    thoughts = {2: "on the left", 3: "green"}
    turns = [Exchange((Text(f"asked {i}"),), answer, ("what it heard",) * (i == 4), thoughts.get(i, ""))
             for i, answer in enumerate(answers)]
    boxes(SimpleNamespace(turns=turns), "a talk")
    ((fig, caption),) = drawn
    axes = fig.axes
    assert caption == "a talk" and len(axes) == 8 and len(axes[0].images) == 1
    assert [axis.get_title() for axis in axes[:6]] == [*(f"{i + 1}. asked {i}" for i in range(4)), "5. asked 4\n→ “what it heard”", ""]
    assert [text.get_text() for axis in axes for text in axis.texts] == [
        "two", "“on the left”\nheard:\n4000 samples", f"“green”\nheard:\n{LENGTH} samples", "five"], "a word has a judge of its own"


def test_a_model_that_has_not_learned_to_converse_answers_each_turn_by_itself(tiny, monkeypatch):
    panel, asked, real = Conversation(tiny), [], tiny.tokens
    assert [want for _, want in panel.want.options] == [*MODALITIES] and panel.want.value == "image"
    monkeypatch.setattr(tiny, "tokens", lambda parts, *more: asked.append(parts) or real(parts, *more, temperature=1.0))
    page = say(panel, "2 CATS and a zebra", want="image")
    assert "I know no “zebra”" in page and "<img" in page.split("<b>model</b>")[1] and asked == [[Text("two cats on the left")]]
    panel.microphone.file = wav(np.concatenate([tone(1), 0.01 * tone(1.8)]))
    assert "these are the loudest 0.9 s" in say(panel, tab=4, want="text")
    assert [type(part) for part in asked[1]] == [Audio] and len(panel.turns.children) == len(panel.chat.turns) == 2
    panel.new.click()
    assert panel.chat.turns == [] and panel.turns.children == ()



@pytest.mark.parametrize("want", MODALITIES)
@pytest.mark.parametrize("tab, text, kinds", [
    (0, "a cat", "text"), (1, "", "image"), (1, "make it green", "image text"), (2, "make it green", "image text"),
    (3, "make it green", "image text"), (4, "", "audio"), (4, "write down what I say", "text audio"), (5, "", "audio"),
])
def test_every_kind_of_turn_is_answered_and_shown(panel, tab, text, kinds, want):
    yours, models = say(panel, text, tab, want).split("<b>model</b>")
    (turn,) = panel.chat.turns
    assert [type(part).__name__.lower() for part in turn.given] == kinds.split() and type(turn.answer).__name__.lower() == want
    looks = {"image": '<div><img alt="a picture" width="192" src="data:image/png;">', "audio": "<div><audio controls"}
    parts = [yours.index(looks.get(kind, f"<div>{text}</div>")) for kind in kinds.split()]
    assert parts == sorted(parts) and yours.count("<div>") == 1 + len(parts) and "<b>you</b>" in yours
    assert looks.get(want, f"<div>{html.escape(str(turn.answer))}</div>") in models
    assert ("<em>to itself: “" in models) == bool(turn.thought)
    assert len(panel.turns.children) == 1 and panel.say.text == "" and panel.tabs.selected_index == 0, "ready for the next turn"


def test_the_answer_is_of_the_kind_that_is_wanted_or_that_the_model_chooses(panel, monkeypatch):
    wanted, real = [], panel.chat.say
    monkeypatch.setattr(panel.chat, "say", lambda *parts, want: wanted.append(want) or real(*parts, want=want))
    for _, want in panel.want.options:
        say(panel, "a cat", want=want)
    assert wanted == [None, "text", "image", "audio"] and panel.want.options[0][0] == "as it sees fit"


def test_the_conversation_goes_on_until_a_new_one_is_begun(panel):
    say(panel, "two cats on the left")
    first = panel.chat.turns[0]
    say(panel, "how many cats are there?")
    assert [t.given[0].text for t in panel.chat.turns] == ["two cats on the left", "how many cats are there?"]
    assert panel.chat.turns[0] is first and "two cats" in panel.turns.children[0].value
    panel.wrong.value = "something"
    panel.new.click()
    assert panel.chat.turns == [] and panel.turns.children == () and panel.wrong.value == ""
    say(panel, "say giraffe")
    assert len(panel.turns.children) == len(panel.chat.turns) == 1


def test_remarks_stand_below_the_answer_and_what_was_typed_is_no_html(panel):
    page = say(panel, "a KITTEN & <b>")
    assert "<div>a KITTEN &amp; &lt;b&gt;</div>" in page.split("<b>model</b>")[0]
    assert "<small><em>I read “kitten” as “cat”.</em></small>" in page.split("<b>model</b>")[1]


def test_a_long_sound_is_shortened_and_this_is_said(panel):
    panel.sound.file = wav(np.concatenate([tone(4), 0.01 * tone(4)]))
    page = say(panel, tab=5)
    assert "8.0 s is more than I listen to at once: these are the loudest 3.0 s." in page.split("<b>model</b>")[0]
    assert panel.chat.turns[0].given[0].seconds == LONGEST_HEARD and "<small>3.00 s</small>" in page


def test_a_picture_is_shown_as_the_model_sees_it(panel):
    panel.picture.file = png((600, 30))
    say(panel, tab=3)
    shown = base64.b64decode(re.search('base64,([^"]+)', panel.turns.children[0].value)[1])
    assert Pillow.open(io.BytesIO(shown)).size == (256, 256)


@pytest.mark.parametrize("tab, change, text, sentence", [
    (0, lambda p: None, "  ", "⚠ nothing to send yet: type something"),
    (0, lambda p: None, "zebra " * 500, "⚠ 2,999 characters are more than anybody says at once"),
    (0, lambda p: None, "zebra " * 300, "⚠ a turn has"),
    (1, lambda p: setattr(p.scene["left"], "value", ""), "", "⚠ the picture is empty: choose something"),
    (1, lambda p: (setattr(p.scene["left_count"], "value", "four"), setattr(p.scene["right"], "value", "dog")), "", "fill the whole"),
    (1, lambda p: setattr(p.scene["sign"], "value", "toolong"), "", "letters A-Z, got &#x27;TOOLONG&#x27;"),
    (2, lambda p: setattr(p.canvas, "file", b""), "", "⚠ nothing drawn yet"),
    (3, lambda p: setattr(p.picture, "file", b""), "", "⚠ no file yet: press “choose a picture” first"),
    (3, lambda p: setattr(p.picture, "file", b"hello"), "", "cannot be read as a picture"),
    (3, lambda p: setattr(p.picture, "file", png()[:40]), "", "is it whole"),
    (4, lambda p: setattr(p.microphone, "file", b""), "", "⚠ nothing recorded yet: press “record” first"),
    (4, lambda p: setattr(p.microphone, "file", wav(np.zeros(8000))), "", "⚠ the sound is silent: record again"),
    (5, lambda p: setattr(p.sound, "file", b""), "", "⚠ no file yet: press “choose a sound” first"),
    (5, lambda p: setattr(p.sound, "file", png()), "", "cannot be read as sound"),
    (5, lambda p: setattr(p.sound, "file", wav(np.zeros(8000))), "", "⚠ the sound is silent: record again"),
])
def test_what_is_wrong_is_said_in_a_sentence_and_nothing_is_lost(panel, tab, change, text, sentence):
    say(panel, "a cat")
    page, turns = panel.turns.children, list(panel.chat.turns)
    change(panel)
    said = say(panel, text or "describe it", tab)
    assert sentence in said and said.startswith('<span role="alert">⚠ ') and said.count("⚠") == 1 and "Traceback" not in said
    assert panel.turns.children == page and panel.chat.turns == turns, "the conversation is as it was"
    assert panel.say.text == (text or "describe it") and panel.tabs.selected_index == tab, "and so is what was to be said"
    assert "<b>model</b>" in say(panel, "a dog") and len(panel.turns.children) == len(panel.chat.turns) == 2


@pytest.mark.parametrize("error, sentence", [
    (RuntimeError("deep <inside>"), "⚠ The model could not answer (RuntimeError: deep &lt;inside&gt;). Say something else; if that fails too"),
    (MemoryError(), "⚠ The model could not answer (MemoryError: )"), (SyntaxError("not a TIFF file"), "⚠ The model could not answer"),
    (KeyboardInterrupt(), "⚠ Stopped before the answer was there."), (OSError("no space left"), "⚠ no space left"),
    (FileNotFoundError("there is no file x"), "⚠ there is no file x"),
])
@pytest.mark.parametrize("where", ["mmcourse.chat.generate", "mmcourse.show.conversation.note_html"])     # before it answered, and after
def test_every_failure_ends_in_one_sentence_and_a_conversation_as_before(panel, monkeypatch, error, sentence, where):
    say(panel, "a cat")
    with monkeypatch.context() as broken:
        broken.setattr(where, lambda *a, **k: (_ for _ in ()).throw(error))
        said = say(panel, "a kitten", want="image")
    assert said.startswith(f'<span role="alert">{sentence}') and panel.say.text == "a kitten"
    assert len(panel.turns.children) == len(panel.chat.turns) == 1
    assert "<b>model</b>" in say(panel, "a kitten") and len(panel.turns.children) == len(panel.chat.turns) == 2


def test_no_second_answer_is_begun_while_one_is_made(said):
    asked, states = [], []
    line = Say(lambda: (asked.append(line.text), line.click(), line._handle_custom_msg({"text": "two"}, [])))
    line.observe(lambda change: states.append(change.new), "busy")
    line._handle_custom_msg({"text": "one"}, [])
    assert asked == ["one"] and states == [True, False] and line.text == "one" and line.status == ""


def test_what_is_typed_comes_with_the_button_and_the_line_is_emptied_before_the_answer(panel, monkeypatch):
    written, real = [], panel.chat.say
    monkeypatch.setattr(panel.say, "send", lambda content: written.append(content))
    monkeypatch.setattr(panel.chat, "say", lambda *parts, **more: written.append(panel.say.status) or real(*parts, **more))
    panel.want.value = "text"
    panel.say._handle_custom_msg({"text": "a cat"}, [])
    assert written == [{"text": ""}, "The model is asked ..."] and panel.chat.turns[0].given == (Text("a cat"),)


def test_examples_and_random_sentences_are_requests_as_they_stand(panel):
    from mmcourse.world.prompts import read_request
    for button in panel.examples:
        button.click()
        assert panel.say.text == button.description and read_request(panel.say.text) == (panel.say.text, ())
    seen = set()
    for _ in range(20):
        panel.random.click()
        seen.add(panel.say.text)
        assert read_request(panel.say.text) == (panel.say.text, ())
    assert len(seen) > 10 and panel.chat.turns == []


def test_the_page_without_a_kernel_has_a_picture_and_a_sentence(tiny, said, monkeypatch):
    import IPython.display
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **kw: shown.append((data, kw)))
    show.panel.panel(tiny)
    ((data, kw),) = shown
    assert data["image/png"].startswith("iVBOR") and "It needs a running kernel" in data["text/plain"]
    assert kw["metadata"]["image/png"]["alt"] == data["text/plain"] and "Where there is none, a picture stands" in said[0]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_tokens_keep_their_boundaries_without_styles(tiny, monkeypatch):
    """A code-hosting page takes all styles away: then a thin line stands between tokens."""
    import re

    import IPython.display
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **kw: shown.append(data["text/html"]))
    monkeypatch.setattr(show, "_in_notebook", lambda: True)
    v = tiny.vocabulary
    show.panel.token_line(v.pack([tiny.segment(Audio(tone(0.4), 8000))])[:6], v, tiny.bpe)
    show.pieces(["a cat", " on", "<b>"])
    for page in shown:
        bare = re.sub(r"<(?!/?code)[^>]*>", "", re.sub(r' (?:style|title)="[^"]*"', "", page))
        assert bare.count("<code>") == bare.count("|") + 1 >= 3 and "</code>|<code>" in bare
    assert "<code>␣on</code>" in re.sub(r' style="[^"]*"', "", shown[1]) and "&lt;b&gt;" in shown[1]


def test_sliders_leave_a_picture_behind(monkeypatch):
    import IPython.display
    from ipywidgets import IntSlider
    from matplotlib import pyplot as plt
    shown, drawn = [], []

    def draw(n):
        drawn.append(n)
        plt.close(plt.figure())
    assert show.interact(draw, n=IntSlider(3, 1, 5)) is None and drawn == [3], "outside a notebook it is drawn once"
    monkeypatch.setattr(show, "_in_notebook", lambda: True)
    monkeypatch.setattr(show, "_say", lambda text: None)
    monkeypatch.setattr(IPython.display, "display", lambda data, **kw: shown.append(data))
    box = show.interact(draw, n=IntSlider(2, 1, 5))
    assert any("widget-view" in kind for kind in shown[-1]) and "without a kernel" in shown[-1]["text/plain"]
    box.children[0].value = 4
    assert drawn[-1] == 4


def test_what_was_drawn_becomes_one_picture_or_a_page():
    from types import SimpleNamespace as Output
    out = io.BytesIO()
    Pillow.new("RGB", (30, 20)).save(out, "PNG")
    picture = Output(data={"image/png": base64.b64encode(out.getvalue()).decode(), "text/plain": "x"}, metadata={"image/png": {"alt": "a <cat>"}})
    words = Output(data={"text/html": "<p>words</p>", "text/plain": "words"}, metadata={})
    data, height = show._still([picture, words])
    assert set(data) == {"image/png"} and height == 54
    data, _ = show._still([picture, words, picture], "printed <b>")
    assert data["text/html"].count("<img alt=\"a &lt;cat&gt;\"") == 2 and "<p>words</p>" in data["text/html"]
    assert data["text/html"].startswith("<pre>printed &lt;b&gt;</pre>")


def test_a_lessons_upload_is_read_as_every_sound_is():
    """Two channels that cancel each other are no silence here either; no file is None; nonsense is one sentence."""
    button = show.upload("sound")
    assert show.audio.uploaded(button) is None
    button.file = wav(np.stack([tone(0.5), -tone(0.5)], 1))
    assert np.abs(show.audio.uploaded(button)).max() > 0.25
    button.file = b"nonsense"
    with pytest.raises(ValueError, match="cannot be read as sound"):
        show.audio.uploaded(button)
