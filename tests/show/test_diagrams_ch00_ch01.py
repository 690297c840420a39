"""The drawings of chapters 00 and 01 say what is so: the numbers on the arrows are the tokenizers', those on the letter its patches'."""
import numpy as np
from matplotlib import pyplot as plt

import mmcourse as mm
from mmcourse import show
from mmcourse.bits import patch_tokens
from mmcourse.show.diagrams import ch00, ch01
from mmcourse.world.letters import draw_letter
from mmcourse.world.pictures import draw
from mmcourse.world.scene import Group, Scene
from mmcourse.world.speech import load_speech


def writing(monkeypatch, draw_it) -> list[str]:
    """Everything that a drawing writes."""
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    draw_it()
    return [text.get_text() for axis in kept[0].axes for text in axis.texts]


def test_the_numbers_on_the_pipe_are_the_tokenizers():
    a, speech = mm.load("reference"), load_speech(progress=False)
    clip = speech.clips[speech.select("cat", held_out=True)[0]]
    things = {"text": "a cat on the left", "image": mm.Image(draw(Scene((Group("cat", 1, "left"),), "blue"))),
              "sound": mm.Audio(clip, 8000)}
    for kind, thing in things.items():
        assert tuple(a.vocabulary.pack([a.segment(thing)])[1:4]) == ch00.NUMBERS[kind], kind


def test_the_diffusion_decoder_paints_pictures_alone(monkeypatch, capsys):
    said = writing(monkeypatch, show.diagrams.ch00.pipe)
    assert any("diffusion" in text for text in said) and any("278" in text for text in said)
    assert "pictures go on through a diffusion decoder" in capsys.readouterr().out


def test_the_letter_carries_its_own_numbers(monkeypatch, capsys):
    letter = draw_letter("R", "DejaVuSerif-Bold")
    said = writing(monkeypatch, lambda: show.diagrams.ch01.patch(letter))
    numbers = [int(text) for text in said if text.isdigit()]
    assert numbers[8:] == patch_tokens(letter).tolist() and numbers[:8] == [8, 4, 2, 1] * 2
    assert any(text.endswith(f"= {ch01.EXAMPLE}") for text in said)
    assert patch_tokens(np.array([[1, 0], [1, 1]])).tolist() == [ch01.EXAMPLE]
