"""What every figure and sound goes through: colours, captions, pictures in a row."""
import base64
import io
import math

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from mmcourse import show


def test_fewer_colours_make_a_lighter_figure(monkeypatch):
    sent = []
    monkeypatch.setattr(show, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, **_: sent.append(data))
    for colours in (None, 16):
        fig, axis = plt.subplots(figsize=(2, 2))
        axis.imshow(np.random.default_rng(0).random((32, 32, 3)))
        show.figure(fig, "noise", colours=colours)
    many, few = (base64.b64decode(d["image/png"]) for d in sent if "image/png" in d)
    assert len(few) < 0.5 * len(many) and len(Image.open(io.BytesIO(few)).convert("RGB").getcolors(10**6)) <= 16
    assert math.isclose(Image.open(io.BytesIO(few)).width, Image.open(io.BytesIO(many)).width)
