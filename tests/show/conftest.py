"""What the tests of figures share."""
import pytest

from mmcourse import show


@pytest.fixture
def drawn(monkeypatch):
    """What was shown: the figures, still open, and their captions."""
    seen = []
    monkeypatch.setattr(show, "figure", lambda fig, text="", **_: (seen.append((fig, text)), fig.canvas.draw()))
    return seen
