"""Photographs and small files: payloads without headers, the best that fits, pictures of any shape."""
import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mmcourse.world import photos


@pytest.mark.parametrize("kind", photos.KINDS)
def test_the_payload_is_what_is_left_without_headers(kind):
    if not photos.can_write(kind):
        pytest.skip(f"this Pillow writes no {kind}")
    x = torch.rand(3, 64, 64)
    (small, _), (large, back) = (photos.squeeze(x, kind, 64, q) for q in (5, 95))
    assert 0 < photos.payload(small) < len(small) and back.shape == x.shape
    assert photos.payload(large) - photos.payload(small) == pytest.approx(len(large) - len(small), abs=40)


def test_what_is_no_such_file_is_refused():
    with pytest.raises(ValueError, match="neither JPEG"):
        photos.payload(b"GIF89a" + bytes(20))
    assert not photos.can_write("no such kind")


def test_codecs_take_pictures_of_any_shape():
    x = torch.rand(3, 50, 90)
    data, back = photos.squeeze(x, "JPEG", 30, 50)
    assert back.shape == x.shape and Image.open(io.BytesIO(data)).size == (30, 17)
    found = photos.candidates(x, "JPEG")
    assert len(found) == len(photos.SIZES) * len(photos.QUALITIES) and found[-1]["picture"].shape == x.shape


def test_best_is_the_least_error_that_fits():
    found = [{"mse": 0.1, "payload": 50, "file": 90}, {"mse": 0.2, "payload": 40, "file": 60}]
    assert photos.best(found, 60) is found[0] and photos.best(found, 60, "file") is found[1]
    assert photos.best(found, 30) is None


def test_photographs_keep_their_shape_and_small_ones_fit(tmp_path):
    photo = photos.open_photo()
    assert photo.shape[0] == 3 and max(photo.shape) <= 180 and 0 <= photo.min() and photo.max() <= 1
    Image.new("L", (90, 40), 255).save(tmp_path / "grey.png")
    assert photos.open_photo(tmp_path / "grey.png", 45).shape == (3, 20, 45)
    small = photos.as_small(photo)
    assert small.shape == photo.shape and not torch.equal(small, photo)


def test_crops_are_pieces_of_the_photographs_and_depend_on_the_generator_alone():
    first = torch.arange(3 * 70 * 80.0).view(3, 70, 80)
    x, = photos.crops(np.random.default_rng(0), [first, -first], 6)
    assert x.shape == (6, 3, 64, 64) and torch.equal(x, photos.crops(np.random.default_rng(0), [first, -first], 6)[0])
    steps = {step for step in x.diff(dim=3).abs().flatten().tolist()}
    assert steps == {1.0}                               # neighbours stay neighbours, mirrored or not
    assert len({tuple(piece[0, 0, :2].tolist()) for piece in x}) > 3


def test_the_album_has_a_test_that_nothing_learns_from():
    pytest.importorskip("skimage")
    learn, test = photos.album()
    assert len(learn) == 27 and list(test) == ["Chelsea"] and all(min(p.shape[1:]) >= 64 for p in learn)
    assert not any(p.shape == test["Chelsea"].shape and torch.equal(p, test["Chelsea"]) for p in learn)


def test_without_scikit_image_the_album_is_empty_and_says_why(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert photos.album() == ([], {}) and "pip install scikit-image" in capsys.readouterr().out


def test_a_photograph_starts_no_program(tmp_path):
    """Pillow hands EPS to Ghostscript: nothing that is not on the list of formats is opened."""
    path = tmp_path / "photo.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(OSError, match="cannot identify"):
        photos.open_photo(path)
    Image.new("RGB", (300, 100), "red").save(path)
    assert photos.open_photo(path).shape == (3, 60, 180)
