"""What may come next, and where tokens look."""
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from mmcourse import show


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are shown, kept open until the test has looked at them."""
    figures = []
    monkeypatch.setattr(show, "figure", lambda fig, text="", **_: figures.append(fig))
    yield figures
    plt.close("all")


def test_an_arc_for_each_token_that_gets_enough_weight(drawn):
    weights = np.zeros((4, 4))
    weights[2] = 0.9, 0.1, 0, 0
    weights[3] = 0, 0.5, 0.5, 0
    show.text.arcs(weights, list("abcd"), [2, 3])
    arcs = [line for line in drawn[0].axes[0].lines if len(line.get_xdata()) > 2]
    ends = {tuple(np.round(sorted((line.get_xdata()[0], line.get_xdata()[-1]))).astype(int)) for line in arcs}
    assert ends == {(0, 2), (1, 3), (2, 3)}
    widths = [line.get_linewidth() for line in arcs]
    assert widths[0] == max(widths)


def test_arcs_refuse_other_shapes():
    with pytest.raises(ValueError, match="give \\(T, T\\) and T names"):
        show.text.arcs(torch.zeros(2, 3), ["a", "b"], [1])
    with pytest.raises(ValueError, match="least"):
        show.text.arcs(torch.zeros(2, 2), ["a", "b"], [1], least=0)


def test_bars_are_what_is_sampled_from(drawn):
    show.text.choices([2.0, 1.0, 0.0], ["x", "y", "z"], temperature=0.5, top_k=2)
    axis = drawn[0].axes[0]
    bars = [patch.get_width() for patch in axis.patches if patch.get_height() < 0.8]
    expected = torch.tensor([4.0, 2.0]).softmax(-1).tolist()
    assert np.allclose(bars, [*expected, 0.0], atol=1e-4) and "2 tokens possible" in axis.get_title()
    with pytest.raises(ValueError, match="above 0"):
        show.text.choices([1.0], ["x"], temperature=0)


def test_the_drawing_of_the_transformer_names_its_parts(monkeypatch):
    said = []
    monkeypatch.setattr("mmcourse.show.diagrams._say", said.append)
    show.diagrams.ch05.transformer("the model")
    show.diagrams.ch05.transformer()
    assert said[0] == "the model" and "residual stream" in said[1]


def test_runs_are_named_at_their_ends_and_names_do_not_meet(drawn):
    show.text.runs({"a": [5.0, 2.0, 2.0], "b": [9.0, 2.01, 2.01], "c": [5.0, 4.0, 4.0]}, ("unigram", 3.0), top=8)
    places = sorted(note.xy[1] for note in drawn[0].axes[0].texts if note.get_text() in "abc")
    assert len(places) == 3 and min(np.diff(places)) > 0.4
    assert max(max(line.get_ydata()) for line in drawn[0].axes[0].lines) == 8
