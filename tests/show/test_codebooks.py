"""Codebooks to look at: the numbers are right, and every figure can be drawn."""
import numpy as np
import pytest
import torch

from mmcourse import show
from mmcourse.vqvae import VQVAE


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return VQVAE(codebook_size=64, dim=8, width=32).eval()


def test_health_by_hand():
    found = show.codebooks.health(torch.tensor([[[0, 0], [5, 7]]]), 16)
    assert found["used"] == 3 and found["perplexity"] == pytest.approx(2 ** 1.5) and found["bits"] == pytest.approx(1.5)
    assert found["nominal_bits"] == 4 and found["most_frequent"] == 0.5
    assert show.codebooks.health(np.arange(8), 8)["perplexity"] == pytest.approx(8)
    assert show.codebooks.counts(torch.zeros(2, 3, 4, dtype=torch.long), 5).tolist() == [24, 0, 0, 0, 0]


@pytest.mark.parametrize("ids, says", [([], "empty"), ([0, 16], r"0\.\.15"), ([-1], r"0\.\.15")])
def test_health_of_what_is_no_codebook(ids, says):
    with pytest.raises(ValueError, match=says):
        show.codebooks.health(ids, 16)


def test_usage_marks_the_living(drawn):
    show.codebooks.usage({"alive": [5, 5, 5, 5], "dead": torch.tensor([20, 0, 0, 0])}, "a caption")
    (figure, caption), = drawn
    labels = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert labels == ["alive: 4 alive, perplexity 4", "dead: 1 alive, perplexity 1"] and caption == "a caption"
    with pytest.raises(ValueError, match="empty"):
        show.codebooks.usage({})


def test_painted_codes_and_distances(small):
    assert show.codebooks.paint_codes(small, torch.arange(64)).shape == (64, 3, 8, 8)
    x = torch.rand(2, 3, 16, 24)
    found = show.codebooks.code_distances(small, x)
    assert found.shape == (2, 2, 3) and found.min() > 0
    with pytest.raises(ValueError, match="multiples of 8"):
        show.codebooks.code_distances(small, torch.rand(1, 3, 9, 8))


def test_a_blend_begins_and_ends_where_it_should(small):
    a, b = small.encode(torch.rand(2, 3, 64, 64))
    smooth, said = show.codebooks.blend(small, a, b, np.linspace(0, 1, 3))
    assert smooth.shape == said.shape == (3, 3, 64, 64)
    for i, ids in ((0, a), (2, b)):
        assert torch.allclose(smooth[i], small.decode(ids[None])[0], atol=1e-5)
        assert torch.allclose(said[i], smooth[i], atol=1e-5)


def test_the_microscope_draws_and_refuses(small, drawn):
    x = torch.rand(2, 3, 64, 64)
    before = x.clone()
    show.codebooks.microscope(small, x, picture=1, row=7, column=0, swap=8)
    assert len(drawn) == 1 and torch.equal(x, before)                  # the frame is drawn on a copy
    for place in ({"row": 8}, {"column": -1}, {"swap": 9}):
        with pytest.raises(ValueError, match="patches are rows 0..7"):
            show.codebooks.microscope(small, x, **place)


def test_the_microscope_survives_a_swap_that_turns_black_to_white(drawn):
    loud = VQVAE(codebook_size=64, dim=8, width=32).eval()
    with torch.no_grad():
        loud.decoder[-2].weight.mul_(1000)
    for swap in (1, 4, 8):
        show.codebooks.microscope(loud, torch.rand(1, 3, 64, 64), swap=swap)
    assert len(drawn) == 3


def test_scatter_and_sheet_draw(small, drawn):
    show.codebooks.scatter(torch.rand(9, 2), {"a": torch.rand(3, 2), "b": torch.rand(3, 2)}, "two")
    show.codebooks.code_sheet(small, torch.arange(64) + 1, "sheet")
    show.codebooks.code_sheet(small, torch.arange(64) // 10, "sheet")
    assert [text for _, text in drawn] == ["two", "sheet", "sheet"] and [len(fig.axes) for fig, _ in drawn] == [2, 1, 2]
    assert [axis.get_title(loc="left") for axis in drawn[2][0].axes] == [
        "54 codes in use, most used first", "10 codes that none of these pictures uses"]


def test_ids_are_written_on_their_patches(drawn):
    show.codebooks.spelled(torch.rand(3, 16, 24), torch.tensor([[1, 2, 3], [40, 50, 60]]), "spelled")
    (figure, caption), = drawn
    written = {text.get_text(): text.get_position() for text in figure.axes[1].texts}
    assert written["3"] == (19.5, 3.5) and written["40"] == (3.5, 11.5) and len(written) == 6 and caption == "spelled"


def test_a_frame_is_drawn_on_a_copy():
    image = torch.ones(3, 24, 24)
    framed = show.codebooks.framed(image, 1, 2)
    assert image.min() == 1 and (framed[0] == 0).sum() == 4 * 7 and framed[0, 8:16, 16:24].sum() == 36
