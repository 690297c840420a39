"""Asking by hand: the panel answers from each of its tabs, says clearly what it cannot do, and draws what it says."""
import io
import json
from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image as Pillow

from mmcourse import show
from mmcourse.media import MAX_SECONDS, Audio, Image, Text
from mmcourse.show.inputs import Canvas, Microphone
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


def upload(content: bytes):
    return ({"name": "x", "type": "", "size": len(content), "content": memoryview(content),
             "last_modified": datetime.now(timezone.utc)},)


@pytest.mark.parametrize("want", MODALITIES)
@pytest.mark.parametrize("given", ["two cats", Image(np.zeros((5, 9, 3), np.uint8)), Audio(tone(0.4), 8000)], ids=str)
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
    panel.picture.value, panel.sound.value = upload(png()), upload(wav(tone(0.4)))
    panel.canvas.file, panel.microphone.file = png(), wav(tone(0.4))
    for tab in range(len(panel.tabs.children)):
        panel.tabs.selected_index = tab
        for want in MODALITIES:
            panel.want.value = want
            said.clear()
            panel.button.click()
            assert len(said) == 1 and not said[0].startswith("⚠"), said


@pytest.mark.parametrize("tab, change, sentence", [
    (0, lambda p: setattr(p.text, "value", "  "), "⚠ the text is empty: type a few words"),
    (0, lambda p: setattr(p.text, "value", "cat " * 500), "shorten it by"),
    (1, lambda p: setattr(p.scene["left"], "value", ""), "⚠ the picture is empty: choose something"),
    (1, lambda p: (setattr(p.scene["left_count"], "value", "four"), setattr(p.scene["right"], "value", "dog")), "fill the whole"),
    (1, lambda p: setattr(p.scene["sign"], "value", "toolong"), "letters A-Z, got 'TOOLONG'"),
    (2, lambda p: None, "⚠ nothing drawn yet"),
    (3, lambda p: None, "⚠ no file yet: press “choose a picture” first"),
    (3, lambda p: setattr(p.picture, "value", upload(b"hello")), "cannot be read as a picture"),
    (3, lambda p: setattr(p.picture, "value", upload(png()[:40])), "is it whole"),
    (4, lambda p: None, "⚠ nothing recorded yet"),
    (4, lambda p: setattr(p.microphone, "file", wav(np.zeros(8000))), "⚠ the sound is silent: record again"),
    (5, lambda p: None, "⚠ no file yet: press “choose a sound” first"),
    (5, lambda p: setattr(p.sound, "value", upload(png())), "cannot be read as sound"),
    (5, lambda p: setattr(p.sound, "value", upload(wav(np.zeros(8000)))), "⚠ the sound is silent: record again"),
])
def test_panel_says_what_is_wrong(tiny, said, tab, change, sentence):
    panel = show.panel.Panel(tiny)
    panel.tabs.selected_index = tab
    change(panel)
    panel.button.click()
    assert len(said) == 1 and sentence in said[0] and "Traceback" not in said[0]


def test_a_long_recording_is_cut_to_its_loudest_part(tiny, said):
    quiet = 0.01 * np.random.default_rng(0).normal(size=8000 * 20)
    quiet[8000 * 12:8000 * 12 + 6400] += tone(0.8)
    part, remark = show.panel.shorten(Audio(quiet, 8000))
    assert abs(part.seconds - 0.9) < 0.01 and "20.0 s is more than one word" in remark
    assert np.square(part.samples).sum() > 0.9 * np.square(tone(0.8)).sum(), "the word is in the part"
    assert show.panel.shorten(Audio(tone(MAX_SECONDS), 8000))[1] == ""
    panel = show.panel.Panel(tiny)
    panel.tabs.selected_index, panel.sound.value = 5, upload(wav(quiet))
    panel.button.click()
    assert len(said) == 2 and "loudest" in said[0] and "Sound in" in said[1]


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


def test_diagram_and_gallery_draw(tiny, said):
    from mmcourse.gallery import draw_gallery, held_out_scenes
    from mmcourse.world.scene import is_held_out
    show.panel.diagram()
    assert "one transformer predicts the next number" in said[-1]
    assert all(map(is_held_out, held_out_scenes(5, 0)))
    assert len(draw_gallery(tiny, seed=1).axes) == 18


@pytest.mark.parametrize("kind", [Canvas, Microphone])
def test_what_the_page_sends_arrives_and_can_be_taken_back(kind):
    widget = kind()
    assert widget.file == b""
    widget._handle_custom_msg({}, [memoryview(b"a file")])
    assert widget.file == b"a file"
    widget._handle_custom_msg({}, [])
    assert widget.file == b"", "an emptied board holds nothing"
    assert kind().file == b"", "one widget's file is not another's"


def test_a_picture_is_changed_by_an_instruction(tiny, said):
    panel = show.panel.Panel(tiny)
    panel.change.value = "make the ground green"
    panel.tabs.selected_index = 1
    panel.button.click()
    assert "the changed picture out" in said[-1]
    panel.want.value = "text"
    panel.button.click()
    assert "an instruction goes with a picture" in said[-1]
    panel.tabs.selected_index, panel.want.value = 0, "image"
    panel.button.click()
    assert "an instruction goes with a picture" in said[-1]
