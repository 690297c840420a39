"""Text, pictures and sounds as people have them: files, bytes, arrays; and a clear sentence for what cannot be read."""
import doctest
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import soundfile
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
    ("A Cat,  blue ground.", "a cat, blue ground"), ("a sign KITE", "sign K I T E"), ("sign K I T E", "sign K I T E"),
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
    with pytest.raises(ValueError, match="too many pixels in the picture: make it smaller than 9,000 x 9,000"):
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
    (np.full((64, 64, 3), 200.0), r"must lie in \[0, 1\], got 200..200: convert to uint8 if they are 0..255, else divide by"),
    (np.full((64, 64, 3), -0.5), r"must lie in \[0, 1\], got -0.5"),
    (np.full((64, 64, 3), 300), r"uint8 .0..255. or uint16 .0..65535., got int64 with 300..300, which says nothing of its scale"),
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
    (np.array(["a"]), 8000, TypeError, r"an array of whole numbers or floats is wanted, got <U1"),
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


# ---------------------------------------------------------------- found in the world: formats, scales, channels

def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_exif(exif: bytes) -> bytes:
    """A red PNG with that EXIF."""
    data = encoded(Pillow.new("RGB", (8, 6), (200, 0, 0)), "PNG")
    return data[:33] + chunk(b"eXIf", exif) + data[33:]


@pytest.mark.parametrize("exif", [b"no exif at all", b"", b"II*\x00\x08\x00\x00\x00\xff\xff", b"MM\x00*" + b"\xff" * 40])
def test_a_picture_with_broken_exif_is_read_as_it_lies(exif):
    pixels = Image(with_exif(exif)).pixels
    assert pixels.shape == (6, 8, 3) and (pixels == [200, 0, 0]).all()
    assert (Image(Pillow.open(io.BytesIO(with_exif(exif)))).pixels == pixels).all()


def test_broken_exif_of_other_files_is_ignored_too():
    red = Pillow.new("RGB", (8, 6), (200, 0, 0))
    for kind in ("WEBP", "JPEG"):
        assert Image(encoded(red, kind, exif=b"Exif\x00\x00nonsense")).pixels.shape == (6, 8, 3)
    raw = encoded(red, "PNG")
    for text in (b"exif\x00not hexadecimal", b"Raw profile type exif\x00\nexif\n  9\nzz"):
        assert Image(raw[:33] + chunk(b"tEXt", text) + raw[33:]).pixels.shape == (6, 8, 3)


def test_no_picture_starts_a_program(tmp_path, monkeypatch):
    """Pillow lets Ghostscript draw EPS files: here nobody is started, whatever the file calls itself."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    (tmp_path / "gs").write_text("#!/bin/sh\ntouch started\n")
    (tmp_path / "gs").chmod(0o755)
    (tmp_path / "picture.png").write_bytes(eps)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail(f"{a} was started"))
    for source in (eps, tmp_path / "picture.png", io.BytesIO(eps)):
        with pytest.raises(ValueError, match="no known picture format"):
            Image(source)
    with pytest.raises(ValueError, match="pictures of the kind EPS are not read here: save it as a PNG or JPEG file"):
        Image(Pillow.open(io.BytesIO(eps)))


@pytest.mark.parametrize("kind", ["PPM", "PCX", "TGA", "ICO", "SGI", "PDF"])
def test_only_the_usual_formats_are_read(kind):
    with pytest.raises(ValueError, match="no known picture format.*really a PNG, JPEG, GIF, BMP, WebP, TIFF or AVIF file"):
        Image(encoded(Pillow.new("RGB", (8, 8)), kind))


def test_avif():
    if "AVIF" not in Pillow.registered_extensions().values():
        pytest.skip("this Pillow has no AVIF")
    assert Image(encoded(Pillow.new("RGB", (16, 16), (200, 0, 0)), "AVIF")).pixels[3, 3, 0] > 180


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_picture_whose_numbers_have_no_scale_is_refused(mode):
    picture = Pillow.new(mode, (8, 6), 128)
    for source in (picture, encoded(picture, "TIFF")):
        with pytest.raises(ValueError, match="int32 with 128..128, which says nothing" if mode == "I" else r"must lie in \[0, 1\], got 128"):
            Image(source)
    assert Image(Pillow.new("F", (8, 6), 0.5)).pixels[0, 0, 0] == 128


def test_deep_pictures_have_their_stated_scale():
    deep = np.full((6, 8), 65535 // 2, np.uint16)
    for source in (deep, encoded(Pillow.fromarray(deep), "PNG"), encoded(Pillow.fromarray(deep), "TIFF"), deep.astype(">u2")):
        assert (Image(source).pixels == 127).all() or (Image(source).pixels == 128).all()
    assert (Image(np.array([[True, False]])).pixels[0, :, 0] == [255, 0]).all()


def test_floats_may_leave_the_range_by_a_rounding_error():
    assert Image(np.full((4, 4), 1.0001)).pixels.max() == 255 and Image(np.full((4, 4), -0.0005)).pixels.max() == 0
    with pytest.raises(ValueError, match=r"got 1.002..1.002"):
        Image(np.full((4, 4), 1.002))
    with pytest.raises(ValueError, match=r"got -1..0.5: they look like \[-1, 1\]: use \(x \+ 1\) / 2"):
        Image(np.linspace(-1, 0.5, 16).reshape(4, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_of_every_width_of_float(dtype):
    assert (Image(torch.full((3, 8, 8), 0.5, dtype=dtype)).pixels == 128).all()
    assert np.allclose(Audio(torch.full((800,), 0.5, dtype=dtype), 8000).samples, 0.5)


@pytest.mark.parametrize("source, error, sentence", [
    (np.zeros((4, 4), complex), TypeError, "whole numbers or floats is wanted, got complex numbers"),
    (torch.zeros(4, 4, dtype=torch.complex64), TypeError, "got complex numbers"),
    (np.array([["a"]]), TypeError, "is wanted, got <U1"), (np.array([[None]]), TypeError, "is wanted, got object"),
    ([[0.1], [0.2, 0.3]], ValueError, "got rows of unequal length"),
    (torch.zeros(3, 8, 8, device="meta"), ValueError, "a meta tensor has no numbers"),
    (torch.zeros(8, 8).to_sparse(), ValueError, "a sparse tensor has no numbers"),
    ("x" * 5000, FileNotFoundError, "there is no file 'xxx.*[.][.][.]'"), ("nul\0byte.png", FileNotFoundError, "there is no file"),
    (np.full((4, 4), 2**40), ValueError, "says nothing of its scale"),
])
def test_numbers_that_are_no_picture(source, error, sentence):
    with pytest.raises(error, match=sentence):
        Image(source)
    if not isinstance(source, np.ndarray) or source.dtype.kind not in "iu":
        with pytest.raises((TypeError, ValueError, FileNotFoundError)):
            Audio(source, 8000)


def test_a_matrix_and_a_list_are_arrays_too():
    matrix = np.asmatrix(np.full((4, 6), 0.5))
    assert (Image(matrix).pixels == 128).all() and (Image(matrix.tolist()).pixels == 128).all()


def test_open_files_and_memory_views(tmp_path):
    data = encoded(Pillow.fromarray(CAT), "PNG")
    (tmp_path / "cat.png").write_bytes(data)
    with open(tmp_path / "cat.png", "rb") as file:
        assert (Image(file).pixels == CAT).all()
    assert (Image(io.BytesIO(data)).pixels == CAT).all() and (Image(memoryview(data)).pixels == CAT).all()
    sound = wav(tone(0.3), 8000)
    assert len(Audio(io.BytesIO(sound)).samples) == len(Audio(memoryview(sound)).samples) == 2400
    with pytest.raises(TypeError, match="gives text, not bytes"):
        Image(io.StringIO("a picture"))


def test_what_is_said_of_bytes_names_no_address():
    for kind in (Image, Audio):
        with pytest.raises(ValueError) as found:
            kind(b"nonsense that is neither picture nor sound")
        assert "0x" not in str(found.value) and "BytesIO" not in str(found.value)


def test_a_large_deep_picture_takes_no_more_memory_than_a_large_one():
    """A 16-bit PNG of 80 million pixels is a small file; what it becomes is bounded before it is worked on."""
    data = encoded(Pillow.fromarray(np.full((5000, 4000), 30000, np.uint16)), "PNG", compress_level=1)
    image = Image(data)
    assert image.pixels.shape == (2500, 2000, 3) and (image.pixels == 117).all()
    assert Image(encoded(Pillow.new("P", (4000, 5000)), "PNG")).pixels.shape == (2500, 2000, 3)


# sounds

def test_channels_that_cancel_each_other_are_not_silence(tiny):
    word = tone(0.5)
    for samples in (np.stack([word, -word]), np.stack([word, -word], 1), np.stack([word, -word, 0 * word], 1)):
        sound = Audio(samples, 8000)
        assert np.allclose(np.abs(sound.samples), np.abs(word), atol=1e-6) and len(sound.speech()) > 3000
    out = io.BytesIO()
    soundfile.write(out, np.stack([word, -word], 1), 8000, format="WAV")
    assert np.abs(Audio(out.getvalue()).samples).max() > 0.25
    with pytest.raises(ValueError, match="the sound is silent"):
        Audio(np.zeros((8000, 2)), 8000).speech()


@pytest.mark.parametrize("total", [0, 2**36 - 1])
def test_a_flac_file_that_does_not_know_its_length(total):
    """ffmpeg and VLC write 0, unknown, into the header of what they record."""
    out = io.BytesIO()
    soundfile.write(out, tone(1.0), 8000, format="FLAC")
    data = bytearray(out.getvalue())
    data[21] = data[21] & 0xF0 | total >> 32                            # 36 bits of STREAMINFO, after "fLaC" and its head
    data[22:26] = struct.pack(">I", total & 0xFFFFFFFF)
    assert len(Audio(bytes(data)).samples) == 8000


@pytest.mark.parametrize("samples", [[100, -3000, 2000] * 400, np.array([100, -3000, 2000] * 400), torch.tensor([100, -3000, 2000] * 400)])
def test_whole_numbers_of_64_bits_are_refused(samples):
    with pytest.raises(ValueError, match=r"64 bits \(int64\) say nothing of their scale: pass 16-bit samples with .astype\(np.int16\)"):
        Audio(samples, 8000)


def test_what_has_too_many_channels_is_no_recording():
    assert Audio(np.zeros((8, 100)), 8000).samples.shape == Audio(np.zeros((100, 8)), 8000).samples.shape == (100,)
    for shape in ((16, 8000), (8000, 16), (9, 9)):
        with pytest.raises(ValueError, match="a recording has up to 8 channels"):
            Audio(np.zeros(shape), 8000)


def test_one_verdict_for_sounds_at_every_door(random_codec):
    """A float sound of +-32767 and a stereo recording: `mm.Audio`, a file and the codec say the same."""
    loud = (tone(0.5) * 32767 * 3).astype(np.float32)
    out = io.BytesIO()
    soundfile.write(out, loud, 8000, format="WAV", subtype="FLOAT")
    for door in (lambda: Audio(loud, 8000), lambda: Audio(out.getvalue()), lambda: random_codec.encode(loud)):
        with pytest.raises(ValueError, match=r"in \[-1, 1\], got -2.95e\+04..2.95e\+04.*32768"):
            door()
    for bad in (np.stack([tone(0.5)] * 2, 1), np.zeros((9, 8), np.float32)):
        with pytest.raises(ValueError, match="samples a row are no sound"):
            random_codec.encode(bad)
    with pytest.raises(ValueError, match=r"float in \[-1, 1\]"):
        random_codec.encode(tone(0.5).astype(np.float64) * 1e300)


def test_a_path_in_any_alphabet(tmp_path):
    """The file is opened by Python, which knows how the system spells names."""
    path = tmp_path / "wört 猫.wav"
    path.write_bytes(wav(tone(0.3), 8000))
    code = f"import mmcourse as mm; print(len(mm.Audio({str(path)!r}).samples))"
    done = subprocess.run([sys.executable, "-X", "utf8=0", "-c", code], capture_output=True, text=True,
                          env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
    assert done.stdout.strip() == "2400" or "surrogates" in done.stderr, done.stderr


@pytest.mark.parametrize("start, seconds", [(0, -1), (-1, 0.5), (0, 0), (5, 1), (float("nan"), 1), (0, float("inf"))])
def test_a_part_that_is_not_there(start, seconds):
    with pytest.raises(ValueError, match="a part begins between 0 and 0.5 s and lasts longer than 0 s, got start="):
        Audio(tone(0.5), 8000).cut(start, seconds)


@pytest.mark.parametrize("rate", [7919, 96001, 399989])
def test_rates_without_a_common_factor_are_no_work(rate):
    """With our own filter a rate that is prime asked for a table of 1.2 GB."""
    heard = Audio(tone(0.5, rate), rate).speech()
    assert abs(len(heard) - 4000) < 400 and abs(np.abs(np.fft.rfft(heard[:3200])).argmax() * 2.5 - 300) < 10
    tracemalloc.start()
    Audio(tone(0.5, rate), rate).at()
    assert tracemalloc.get_traced_memory()[1] < 60e6
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "WAV", "FLAC", "OGG", "MP3"])
def test_a_damaged_file_is_read_or_ends_in_a_sentence(kind):
    """Whatever foreign code makes of flipped, cut and repeated bytes, nobody meets its exceptions."""
    dice = np.random.default_rng(len(kind))
    if kind in ("WAV", "FLAC", "OGG", "MP3"):
        out = io.BytesIO()
        soundfile.write(out, tone(0.1, 16000), 16000, format=kind)
        whole, reader = out.getvalue(), Audio
    else:
        whole, reader = encoded(Pillow.fromarray(noise(24, 17)), kind), Image
    ends = set()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(int(dice.integers(1, 6))):
            data[int(dice.integers(min(len(data), 200 if dice.random() < 0.7 else len(data))))] = int(dice.integers(256))
        if dice.random() < 0.2:
            del data[int(dice.integers(len(data))):]
        try:
            thing = reader(bytes(data))
            ends.add("read")
            assert thing.pixels.dtype == np.uint8 if reader is Image else np.isfinite(thing.samples).all()
        except ValueError as error:
            ends.add("refused")
            assert 20 < len(str(error)) < 500 and "0x" not in str(error)
    assert ends <= {"read", "refused"} and "refused" in ends


# ---------------------------------------------------------------- what is shown

def test_answers_show_themselves_in_a_notebook():
    assert Pillow.open(io.BytesIO(Image(CAT)._repr_png_())).size == (256, 256)
    assert "<audio" in Audio(tone(0.5), 8000)._repr_html_()
    assert repr(Audio(tone(0.5), 8000)) == "Audio(0.50 s at 8000 Hz)" and repr(Image(CAT)) == "Image(64x64)"
