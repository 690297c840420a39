"""Text, pictures and sounds as people have them: files, bytes, arrays; and a clear sentence for what cannot be read."""
import doctest
import io

import numpy as np
import pytest
import torch
from helpers import CAT, encoded, noise, tone, wav
from PIL import Image as Pillow

from mmcourse import media
from mmcourse.media import Audio, Image, Text


def test_docstrings():
    assert doctest.testmod(media).failed == 0


# ---------------------------------------------------------------- text

@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_text(text):
    with pytest.raises(ValueError, match="the text is empty: type a few words, for example"):
        Text(text)


@pytest.mark.parametrize("other", [None, 3, b"a cat", ["a cat"]])
def test_text_that_is_no_string(other):
    with pytest.raises(TypeError, match=f"Text takes a string, got {type(other).__name__}"):
        Text(other)


@pytest.mark.parametrize("typed, read", [
    ("A Cat,  blue ground.", "a cat, blue ground"), ("a sign KITE", "a sign K I T E"), ("sign K I T E", "sign K I T E"),
    ("a cat\non the left", "a cat on the left"), ("A", "a"),
])
def test_text_is_read_as_captions_are_written(typed, read):
    assert Text(typed).normalised() == read


# ---------------------------------------------------------------- pictures

@pytest.mark.parametrize("size", [(1, 1), (1, 500), (700, 3), (64, 64), (63, 65), (480, 640)])
def test_a_picture_of_any_size(tiny, size):
    picture = Image(noise(*size))
    square = picture.square()
    assert square.shape == (1, 3, 64, 64) and 0 <= square.min() and square.max() <= 1
    assert len(tiny.segment(picture).ids) == 64


def test_a_picture_keeps_its_proportions():
    wide = np.zeros((20, 200, 3), np.uint8)
    wide[:, :, 0] = 255
    wide[8:12, 90:110] = 255                                            # a white mark in the middle of a red strip
    square = Image(wide).square()[0]
    assert (square[0] == 1).all(), "the room above and below has the colour of the border"
    rows = (square[1] > 0.5).any(1).nonzero().flatten()
    assert len(rows) <= 3, "the picture is not stretched to a square"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_huge_picture(tiny, kind):
    data = encoded(Pillow.new("L", (8000, 8000), 130), kind)
    assert len(tiny.segment(Image(data)).ids) == 64


def test_a_picture_with_too_many_pixels():
    data = encoded(Pillow.new("1", (12000, 12000)), "PNG")
    with pytest.raises(ValueError, match="the bytes has too many pixels: make it smaller than 9,000 x 9,000"):
        Image(data)


@pytest.mark.parametrize("mode, kind", [
    ("RGB", "PNG"), ("RGB", "JPEG"), ("RGB", "WEBP"), ("RGB", "BMP"), ("L", "PNG"), ("L", "JPEG"), ("1", "PNG"),
    ("P", "PNG"), ("P", "GIF"), ("RGBA", "PNG"), ("LA", "PNG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("I;16", "PNG"),
])
def test_a_picture_of_any_kind(mode, kind):
    """A red picture (grey where there are no colours) comes out as itself, whatever it was stored as."""
    picture = Pillow.new("RGB", (40, 30), (200, 30, 30))
    picture = Pillow.new("I;16", (40, 30), 200 * 257) if mode == "I;16" else picture.convert(mode)
    pixels = Image(encoded(picture, kind)).pixels
    assert pixels.shape == (30, 40, 3) and pixels.dtype == np.uint8
    expected = {"L": (81,) * 3, "LA": (81,) * 3, "I;16": (200,) * 3}.get(mode, (200, 30, 30))
    if mode != "1":
        assert np.abs(pixels.reshape(-1, 3).mean(0) - expected).max() < 6


def test_transparent_parts_become_white():
    clear = Pillow.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (Image(clear).pixels == 255).all() and (Image(np.asarray(clear)).pixels == 255).all()
    palette = Pillow.new("P", (8, 8), 0)
    palette.putpalette([200, 0, 0])
    assert (Image(encoded(palette, "PNG")).pixels == [200, 0, 0]).all()
    assert (Image(encoded(palette, "PNG", transparency=0)).pixels == 255).all()


def test_a_photo_held_upright_is_turned():
    exif = Pillow.Exif()
    exif[0x0112] = 6                                                    # orientation: turn by 90 degrees to look at it
    assert Image(encoded(Pillow.new("RGB", (40, 30)), "JPEG", exif=exif)).pixels.shape == (40, 30, 3)


def test_pixels_of_every_usual_kind():
    floats = torch.from_numpy(CAT).permute(2, 0, 1).float() / 255
    assert (Image(floats).pixels == CAT).all() and (Image(floats.permute(1, 2, 0).numpy()).pixels == CAT).all()
    assert Image(np.ones((5, 7))).pixels.shape == (5, 7, 3) and Image(np.zeros((5, 7, 1), np.uint8)).pixels.max() == 0
    assert (Image(Image(CAT)).pixels == CAT).all()


@pytest.mark.parametrize("pixels, sentence", [
    (np.full((64, 64, 3), np.nan), "holds NaN or infinite values: look at what made it"),
    (np.full((64, 64), np.inf), "holds NaN or infinite values"),
    (np.full((64, 64, 3), 200.0), r"must lie in \[0, 1\], got 200..200: divide by the largest value, or convert to uint8"),
    (np.full((64, 64, 3), -0.5), r"must lie in \[0, 1\], got -0.5"),
    (np.full((64, 64, 3), 300), r"must lie in \[0, 1\], got 300"),
    (np.zeros((0, 64, 3)), r"pixels have the shape \(H, W\), \(H, W, 3\) or \(H, W, 4\), got \(0, 64, 3\)"),
    (np.zeros((2, 3, 64, 64)), r"pixels have the shape .*got \(2, 3, 64, 64\)"),
    (np.zeros(64), "pixels have the shape"),
])
def test_pixels_that_cannot_be(pixels, sentence):
    with pytest.raises(ValueError, match=sentence):
        Image(pixels)


def test_a_source_that_is_no_picture():
    with pytest.raises(TypeError, match="Image takes a file name, bytes, a PIL image or an array of pixels, got int"):
        Image(7)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.6])
def test_a_truncated_picture(kind, share):
    whole = encoded(Pillow.fromarray(noise(90, 90)), kind)
    with pytest.raises(ValueError, match="cannot be read as a picture .* is it whole, and really a PNG, JPEG"):
        Image(whole[:int(len(whole) * share)])


def test_files_that_are_not_what_their_name_says(tmp_path):
    (tmp_path / "picture.png").write_text("not a picture at all")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "sound.png").write_bytes(wav(tone(0.3), 8000))
    for name in ("picture.png", "empty.png", "sound.png"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a picture .no known picture format.: is it whole"):
            Image(tmp_path / name)
    (tmp_path / "words.wav").write_text("not a sound at all")
    (tmp_path / "empty.flac").write_bytes(b"")
    (tmp_path / "picture.wav").write_bytes(encoded(Pillow.new("RGB", (9, 9)), "PNG"))
    for name in ("words.wav", "empty.flac", "picture.wav"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as sound .* really a WAV, FLAC, OGG or MP3 file"):
            Audio(tmp_path / name)
    (tmp_path / "really_a_jpeg.png").write_bytes(encoded(Pillow.new("RGB", (9, 9), "red"), "JPEG"))
    assert Image(tmp_path / "really_a_jpeg.png").pixels[0, 0, 0] > 240, "what can be read is read, whatever its name"


@pytest.mark.parametrize("kind", [Image, Audio])
def test_a_file_that_is_not_there(kind, tmp_path):
    for missing in (tmp_path / "nothing.bin", tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            kind(missing)


# ---------------------------------------------------------------- sounds

@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_a_sound_of_any_rate(tiny, rate):
    heard = Audio(tone(0.5, rate), rate).speech()
    assert heard.dtype == np.float32 and abs(len(heard) - 4000) < 400
    peak = np.abs(np.fft.rfft(heard[:3200])).argmax() * 8000 / 3200
    assert abs(peak - 300) < 10, "the pitch stays"
    assert len(tiny.segment(Audio(tone(0.5, rate), rate)).ids) % 2 == 0


@pytest.mark.parametrize("dtype, full", [(np.int16, 32767), (np.int32, 2**31 - 1), (np.uint8, 127)])
def test_whole_numbers(dtype, full):
    samples = (tone(0.5) * full + (128 if dtype is np.uint8 else 0)).astype(dtype)
    assert np.abs(Audio(samples, 8000).samples - tone(0.5)).max() < 0.02


def test_stereo_both_ways_round():
    left, right = tone(0.5), 0 * tone(0.5)
    for samples in (np.stack([left, right]), np.stack([left, right], 1)):
        assert np.allclose(Audio(samples, 8000).samples, left / 2)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_sound_files(tmp_path, kind):
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / f"word.{kind.lower()}"
    stereo = np.stack([tone(0.5, 44100)] * 2, 1)
    soundfile.write(path, stereo, 44100, format=kind)
    for source in (path, str(path), path.read_bytes()):
        sound = Audio(source)
        assert sound.rate == 44100 and sound.samples.ndim == 1 and abs(sound.seconds - 0.5) < 0.1
        assert 0.25 < np.abs(sound.samples).max() < 0.4
    with pytest.raises(ValueError, match="cannot be read as sound|too short"):
        Audio(path.read_bytes()[:30]).speech()


def test_silence_around_a_word_is_cut():
    quiet = np.zeros(30 * 8000, np.float32)
    heard = Audio(np.concatenate([quiet, tone(0.5), quiet]), 8000).speech()
    assert len(heard) < 0.6 * 8000, "a minute with one word in it is one word"


@pytest.mark.parametrize("samples, rate, sentence", [
    (np.zeros(8000), 8000, "the sound is silent: record again, nearer to the microphone"),
    (np.full(8000, 0.2), 8000, "the sound is silent"),
    (tone(0.01), 8000, "lasts 0.010 s, too short for a word: give it at least 0.05 s"),
    (tone(60.0), 8000, r"60.0 s of sound, but the model listens to at most 2.5 s.*\.cut\(start, seconds\)"),
])
def test_sounds_that_say_nothing(tiny, samples, rate, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.generate([Audio(samples, rate)], "text")


def test_a_long_sound_can_be_cut(tiny):
    part = Audio(tone(60.0, 44100), 44100).cut(30, 0.8)
    assert abs(part.seconds - 0.8) < 0.01
    tiny.generate([part], "text", temperature=1.0)


@pytest.mark.parametrize("samples, rate, kind, sentence", [
    (np.array([0.1, np.nan, 0.1]), 8000, ValueError, "the sound holds NaN or infinite values: look at what made it"),
    (np.array([0.1, np.inf]), 8000, ValueError, "NaN or infinite"),
    (tone(0.5) * 32768, 8000, ValueError, r"must lie in \[-1, 1\], got .*divide 16-bit samples by 32768, or pass them"),
    (np.zeros(0), 8000, ValueError, r"samples have the shape \(n,\) or \(n, channels\) with n > 0, got \(0,\)"),
    (np.zeros((5, 0)), 8000, ValueError, "samples have the shape"),
    (np.zeros((2, 3, 4)), 8000, ValueError, "samples have the shape"),
    (np.array(["a"]), 8000, TypeError, r"samples are floats in \[-1, 1\] or integers"),
    (tone(0.5), None, ValueError, r"Audio needs the sample rate, a whole number .* Audio\(samples, 16000\); got None"),
    (tone(0.5), 0, ValueError, "Audio needs the sample rate"),
    (tone(0.5), -8000, ValueError, "Audio needs the sample rate"),
    (tone(0.5), float("nan"), ValueError, "Audio needs the sample rate"),
    (tone(0.5), 8000.5, ValueError, "a whole number"),
    (tone(0.5), 10**9, ValueError, "Audio needs the sample rate"),
])
def test_sounds_that_cannot_be(samples, rate, kind, sentence):
    with pytest.raises(kind, match=sentence):
        Audio(samples, rate)


# ---------------------------------------------------------------- what is shown

def test_answers_show_themselves_in_a_notebook():
    assert Pillow.open(io.BytesIO(Image(CAT)._repr_png_())).size == (256, 256)
    assert "<audio" in Audio(tone(0.5), 8000)._repr_html_()
    assert repr(Audio(tone(0.5), 8000)) == "Audio(0.50 s at 8000 Hz)" and repr(Image(CAT)) == "Image(64x64)"
