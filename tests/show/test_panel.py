"""Asking by hand: the panel answers from each of its tabs, says clearly what it cannot do, and draws what it says."""
import base64
import io
import json

import numpy as np
import pytest
from PIL import Image as Pillow

from mmcourse import show
from mmcourse.media import MAX_SECONDS, Audio, Image, Text
from mmcourse.show.inputs import AskButton, Canvas, Microphone, Upload
from mmcourse.vocabulary import MODALITIES
from mmcourse.world.pictures import draw
from mmcourse.world.scene import Group, Scene


@pytest.fixture
def said(monkeypatch):
    """Every caption that is shown."""
    heard = []
    monkeypatch.setattr(show, "_say", heard.append)
    return heard


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


def test_panel_answers_from_every_tab(tiny, said):
    panel = show.panel.Panel(tiny)
    panel.picture.file, panel.sound.file = png(), wav(tone(0.4))
    panel.canvas.file, panel.microphone.file = png(), wav(tone(0.4))
    for tab in range(len(panel.tabs.children)):
        panel.tabs.selected_index = tab
        for want in MODALITIES:
            panel.want.value = want
            said.clear()
            panel.button.click()
            (answer,) = [line for line in said if "in, " in line and "→" in line]
            thought = [line for line in said if line.startswith("To itself it said: “")]
            assert len(thought) == ((tab > 0, want) in ((True, "audio"), (True, "image")) and tab in ((1, 2, 3) if want == "audio" else (4, 5)))
            word = ["I speak one word at a time: this is “cat”.", "So I read: “cat”."] if (tab, want) == (0, "audio") else []
            assert said == [*word, answer, *thought] and not panel.button.busy and not panel.button.status


@pytest.mark.parametrize("tab, change, sentence", [
    (0, lambda p: setattr(p.text, "value", "  "), "⚠ the text is empty: type a few words"),
    (0, lambda p: setattr(p.text, "value", "zebra " * 500), "shorten it by"),
    (1, lambda p: setattr(p.scene["left"], "value", ""), "⚠ the picture is empty: choose something"),
    (1, lambda p: (setattr(p.scene["left_count"], "value", "four"), setattr(p.scene["right"], "value", "dog")), "fill the whole"),
    (1, lambda p: setattr(p.scene["sign"], "value", "toolong"), "letters A-Z, got 'TOOLONG'"),
    (2, lambda p: None, "⚠ nothing drawn yet"),
    (3, lambda p: None, "⚠ no file yet: press “choose a picture” first"),
    (3, lambda p: setattr(p.picture, "file", b"hello"), "cannot be read as a picture"),
    (3, lambda p: setattr(p.picture, "file", png()[:40]), "is it whole"),
    (4, lambda p: None, "⚠ nothing recorded yet"),
    (4, lambda p: setattr(p.microphone, "file", wav(np.zeros(8000))), "⚠ the sound is silent: record again"),
    (5, lambda p: None, "⚠ no file yet: press “choose a sound” first"),
    (5, lambda p: setattr(p.sound, "file", png()), "cannot be read as sound"),
    (5, lambda p: setattr(p.sound, "file", wav(np.zeros(8000))), "⚠ the sound is silent: record again"),
])
def test_panel_says_what_is_wrong(tiny, said, tab, change, sentence):
    panel = show.panel.Panel(tiny)
    panel.tabs.selected_index = tab
    change(panel)
    panel.button.click()
    assert sentence in said[-1] and "Traceback" not in said[-1] and not panel.button.busy
    assert len(said) == 1 or "zebra" in panel.text.value and len(said) <= 4


def test_a_long_recording_is_cut_to_its_loudest_part(tiny, said):
    quiet = 0.01 * np.random.default_rng(0).normal(size=8000 * 20)
    quiet[8000 * 12:8000 * 12 + 6400] += tone(0.8)
    part, remark = show.panel.shorten(Audio(quiet, 8000))
    assert abs(part.seconds - 0.9) < 0.01 and "20.0 s is more than one word" in remark
    assert np.square(part.samples).sum() > 0.9 * np.square(tone(0.8)).sum(), "the word is in the part"
    assert show.panel.shorten(Audio(tone(MAX_SECONDS), 8000))[1] == ""
    panel = show.panel.Panel(tiny)
    panel.tabs.selected_index, panel.sound.file = 5, wav(quiet)
    panel.button.click()
    assert len(said) == 3 and "loudest" in said[0] and "Sound in" in said[1] and "To itself it said" in said[2]


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
    panel = show.panel.Panel(tiny)
    panel.change.value = "make the ground green"
    panel.tabs.selected_index = 1
    panel.button.click()
    assert "the changed picture out" in said[-2] and said[-1].startswith("To itself it said: “")
    panel.want.value = "text"
    panel.button.click()
    assert "an instruction goes with a picture" in said[-1]
    panel.tabs.selected_index, panel.want.value = 0, "image"
    panel.button.click()
    assert "an instruction goes with a picture" in said[-1]


# ---------------------------------------------------------------- a panel that survives its users

@pytest.mark.parametrize("error, sentence", [
    (RuntimeError("deep inside"), "⚠ The model could not answer (RuntimeError: deep inside). Ask something else; if that fails too"),
    (MemoryError(), "⚠ The model could not answer (MemoryError: )"), (SyntaxError("not a TIFF file"), "⚠ The model could not answer"),
    (KeyboardInterrupt(), "⚠ Stopped before the answer was there."), (OSError("no space left"), "⚠ no space left"),
    (FileNotFoundError("there is no file x"), "⚠ there is no file x"),
])
def test_every_failure_ends_in_one_sentence_and_a_button_that_works(tiny, said, monkeypatch, error, sentence):
    panel = show.panel.Panel(tiny)
    with monkeypatch.context() as broken:
        broken.setattr(tiny, "tokens", lambda *a, **k: (_ for _ in ()).throw(error))
        panel.button.click()
    assert len(said) == 1 and said[0].startswith(sentence) and not panel.button.busy
    panel.button.click()
    assert "in, " in said[-1], "the next question is answered"


def test_no_second_answer_is_begun_while_one_is_made(said):
    asked, states = [], []
    button = AskButton(lambda: (asked.append(1), button.click(), button._handle_custom_msg({"ask": True}, [])))
    button.observe(lambda change: states.append(change.new), "busy")
    button._handle_custom_msg({"ask": True}, [])
    assert asked == [1] and states == [True, False] and button.status == ""


def test_the_status_says_what_the_model_says_to_itself(tiny, said):
    panel, status = show.panel.Panel(tiny), []
    panel.button.observe(lambda change: status.append(change.new), "status")
    panel.tabs.selected_index, panel.microphone.file = 4, wav(tone(0.4))
    panel.button.click()
    first = tiny.said_first([Audio(wav(tone(0.4)))], "image", 0)
    assert status == ["The model is asked ...", f"It says to itself: “{first}” ...", ""] and said[-1] == f"To itself it said: “{first}”."


def test_what_was_not_understood_is_shown_above_the_answer(tiny, said):
    panel = show.panel.Panel(tiny)
    panel.text.value = "2 red CATS and a zebra"
    panel.button.click()
    assert [line[:20] for line in said[:3]] == ["“red” before “cats” ", "I know no “zebra” (n", "Where do the two sta"]
    assert said[3] == "So I read: “two cats on the left”." and "→" in said[4]
    assert show.panel.ask(tiny, "a zebra and a cat", "image", temperature=1.0).remarks == ("I know no “zebra” (nearest: camera).",)


def test_examples_and_random_sentences_can_be_asked(tiny, said):
    from mmcourse.world.prompts import read_prompt
    panel = show.panel.Panel(tiny)
    for button in panel.examples:
        button.click()
        assert panel.text.value == button.description and read_prompt(panel.text.value)[1] == ()
    seen = set()
    for _ in range(20):
        panel.random.click()
        seen.add(panel.text.value)
        assert read_prompt(panel.text.value) == (panel.text.value, ())
    assert len(seen) > 10


def test_the_page_without_a_kernel_has_a_picture_and_a_sentence(tiny, said, monkeypatch):
    import IPython.display
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **kw: shown.append((data, kw)))
    show.panel.panel(tiny)
    ((data, kw),) = shown
    assert data["image/png"].startswith("iVBOR") and "It needs a running kernel" in data["text/plain"]
    assert kw["metadata"]["image/png"]["alt"] == data["text/plain"] and "Where there is none, a picture stands" in said[0]


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
