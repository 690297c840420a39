import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmcourse import __main__ as cli
from mmcourse.cli import ROOT
from mmcourse.world import human_digits, speech
from mmcourse.world.scene import WORDS, held_out_voice
from mmcourse.world.speech import (
    SAMPLE_RATE,
    VOICES,
    load_speech,
    normalize_rms,
    resample,
    synthesize,
    to_mono,
    trim,
)

sine = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)


def test_corpus_is_whole():
    corpus = load_speech(progress=False)
    assert len(corpus) == len(WORDS) * len(VOICES) * speech.TAKES
    assert len(VOICES) == 48 == len(set(VOICES)) and sum(held_out_voice(v) for v in range(48)) == 8
    lengths = np.array([len(c) for c in corpus.clips])
    assert lengths.max() <= speech.LONGEST * SAMPLE_RATE and lengths.min() > 0.1 * SAMPLE_RATE
    assert all(c.dtype == np.float32 and np.abs(c).max() <= 1 for c in corpus.clips)
    loudness = np.array([np.sqrt(np.mean(c**2)) for c in corpus.clips])
    assert np.median(loudness) == pytest.approx(0.1, abs=0.01) and loudness.min() > 0.05


def test_no_variant_is_on_both_sides():
    sides = [{v.partition("+")[2] or v for i, v in enumerate(VOICES) if held_out_voice(i) == side} for side in (False, True)]
    assert not sides[0] & sides[1]


def test_select():
    corpus = load_speech(progress=False)
    assert len(corpus.select()) == 40 * 84 * 2 and len(corpus.select(held_out=True)) == 8 * 84 * 2
    assert len(corpus.select("cat", held_out=None)) == 96
    assert {corpus.voices[i] for i in corpus.select("cat", held_out=True)} == {5, 11, 17, 23, 29, 35, 41, 47}
    with pytest.raises(ValueError, match="nobody says 'dragon' in this world; the words are ant, apple, .*, zero"):
        corpus.select("dragon")


def test_two_fresh_processes_say_the_same_bits():
    jobs = [("cat", "en-us", 50, 160), ("elephant", "en-us+m4", 40, 150), ("seven", "en+f4", 60, 180)]
    first, second = ([s for s, _ in speech.speak(jobs)] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_damaged_cache_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    good = load_speech(progress=False, words=("cat", "dog"))
    (path,) = tmp_path.glob("speech-*.npz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="damaged"):
        again = load_speech(progress=False, words=("cat", "dog"))
    assert all(np.array_equal(a, b) for a, b in zip(good.clips, again.clips, strict=True))
    path.write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        load_speech(progress=False, words=("cat", "dog"))


def test_another_espeak_gives_a_warning_not_a_crash(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(speech, "WORDS", ("cat",))
    monkeypatch.setattr(speech, "EXPECTED", "0" * 64)
    with pytest.warns(UserWarning, match="not the build"):
        assert len(load_speech(progress=False, words=("cat",))) == 96


def test_say_any_text_in_two_languages():
    english, vietnamese = synthesize("a red cat"), synthesize("xin chào các bạn", "vi")
    assert english.dtype == np.float32 and english.ndim == 1
    assert 0.4 < len(english) / SAMPLE_RATE < 2 and 0.4 < len(vietnamese) / SAMPLE_RATE < 3
    assert len(synthesize("cat", 3, speed=300)) < len(synthesize("cat", 3, speed=100))


@pytest.mark.parametrize("arguments, says", [
    (("",), "nothing to say"), ((" \n",), "nothing to say"), (("cat", "klingon-9"), "no voice 'klingon-9'"),
    (("cat", "en-us", 200), "pitch is 0 to 99"), (("cat", "en-us", 50, 5), "speed 80 to 450"), (("cat", 48), "0 to 47")])
def test_say_bad_input(arguments, says):
    with pytest.raises(ValueError, match=says):
        synthesize(*arguments)


def test_resample_against_scipy():
    scipy_signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(0)
    t = np.arange(22050) / 22050
    x = sum(rng.normal() * np.sin(2 * np.pi * f * t + f) for f in (150, 700, 1500, 3000))
    ours, theirs = resample(x, 22050, 8000), scipy_signal.resample_poly(x, 160, 441)
    assert len(ours) == len(theirs) == 8000
    exact = sum(np.random.default_rng(0).normal(size=4)[i] * np.sin(2 * np.pi * f * np.arange(8000) / 8000 + f)
                for i, f in enumerate((150, 700, 1500, 3000)))
    inner = slice(200, -200)
    assert np.abs(ours - exact)[inner].max() < 0.003 * np.abs(exact).max()
    assert np.corrcoef(ours[inner], theirs[inner])[0, 1] > 0.9999


def test_resample_removes_what_cannot_be_kept():
    high = np.sin(2 * np.pi * 6000 * np.arange(22050) / 22050)              # would alias to 2 kHz
    assert np.abs(resample(high, 22050, 8000)[200:-200]).max() < 0.002


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 44101, 4000])
def test_resample_keeps_a_tone(rate):
    x = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    assert np.abs(resample(x, rate) - sine)[300:-300].max() < 0.01


def test_resample_bad_rate():
    for rate in (0, -1, 22050.5):
        with pytest.raises(ValueError, match="sample rate"):
            resample(sine, rate)


def test_to_mono_takes_any_recording():
    whole = (sine * 20000).astype(np.int16)
    expected = whole / 32768
    assert np.allclose(to_mono(whole), expected, atol=1e-6)
    assert np.allclose(to_mono(np.stack([whole, whole], 1)), expected, atol=1e-6)
    assert np.allclose(to_mono(np.stack([whole, whole])), expected, atol=1e-6)
    assert np.allclose(to_mono((sine * 100 + 128).astype(np.uint8)), sine * 100 / 128, atol=0.01)
    assert to_mono(np.zeros(80)).tolist() == [0.0] * 80


@pytest.mark.parametrize("bad, error", [
    (np.array([]), ValueError), (np.zeros((2, 3, 4)), ValueError), (np.array([0.0, np.nan]), ValueError),
    (np.array([np.inf, 0.0]), ValueError), (np.array([0.0, 9.0]), ValueError), (np.array(["a"]), TypeError),
    (np.array([1j]), TypeError)])
def test_to_mono_bad_input(bad, error):
    with pytest.raises(error):
        to_mono(bad)


def test_trim_and_normalize():
    padded = np.concatenate([np.zeros(2000), sine, np.zeros(3000)])
    assert 8000 <= len(trim(padded)) <= 8400
    assert len(trim(np.zeros(100))) == 100 and len(trim(np.zeros(3))) == 3
    assert np.sqrt(np.mean(normalize_rms(sine * 0.01) ** 2)) == pytest.approx(0.1)
    assert not normalize_rms(np.zeros(50)).any() and len(normalize_rms(np.zeros(0))) == 0


def test_speech_needs_no_torch():
    code = "import mmcourse.world.speech, mmcourse.world.human_digits, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_human_digits_are_optional(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    assert human_digits.load_human_digits() is None
    with pytest.raises(FileNotFoundError, match="is missing"):
        human_digits.install(tmp_path)


def pin(folder, manifest):
    """Write down the hashes of a folder's recordings, as sha256sum does."""
    lines = [f"{value}  {name}\n" for name, value in human_digits.hashes(folder).items()]
    manifest.write_text("".join(lines), encoding="utf-8")


def test_human_digits_from_a_folder(tmp_path, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(human_digits, "PER_DIGIT", 6)
    source = tmp_path / "recordings"
    source.mkdir()
    for name in human_digits.names():
        soundfile.write(source / name, sine[:800] * 0.3, 8000, subtype="PCM_16")
    with pytest.raises(ValueError, match="0_jackson_0.wav, .* and 237 more"):
        human_digits.install(tmp_path)
    monkeypatch.setattr(human_digits, "MANIFEST", tmp_path / "pinned.sha256")
    pin(source, human_digits.MANIFEST)
    human_digits.install(tmp_path)
    digits = human_digits.load_human_digits()
    assert len(digits.clips) == 240 and set(digits.words) == set(human_digits.DIGITS)
    kept = {s for s, out in zip(digits.speakers, digits.held_out, strict=True) if not out}
    assert kept == set(human_digits.SPEAKERS) - {human_digits.VALIDATION_SPEAKER}
    assert digits.held_out.sum() == 60 + 3 * 50


def test_a_tampered_recording_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(human_digits, "PER_DIGIT", 1)
    monkeypatch.setattr(human_digits, "MANIFEST", tmp_path / "pinned.sha256")
    for name in human_digits.names():
        (tmp_path / name).write_bytes(name.encode())
    pin(tmp_path, human_digits.MANIFEST)
    human_digits.check(tmp_path)
    (tmp_path / "7_theo_0.wav").write_bytes(b"7_theo_1.wav")
    with pytest.raises(ValueError, match="^7_theo_0.wav in"):
        human_digits.install(tmp_path)
    assert not human_digits.available(), "nothing is copied"


def test_every_recording_has_a_pinned_hash():
    known = human_digits.pinned()
    assert list(known) == human_digits.names() and len(set(known.values())) == 2000 == len(known)


def test_human_digits_without_a_network(tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch")
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))

    def refuse(*args, **kwargs):
        raise OSError("no network")
    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(RuntimeError, match="--from FOLDER"):
        human_digits.load_human_digits(download=True)


@pytest.fixture
def tiny_digits(tmp_path, monkeypatch):
    """A folder with one recording of each digit and person, pinned, and the same as a zip."""
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(human_digits, "PER_DIGIT", 1)
    monkeypatch.setattr(human_digits, "MANIFEST", tmp_path / "pinned.sha256")
    source = tmp_path / "fsdd" / "recordings"
    source.mkdir(parents=True)
    for name in human_digits.names():
        record(source / name, sine[:800] * 0.3)
    pin(source, human_digits.MANIFEST)
    return source, Path(shutil.make_archive(tmp_path / "good", "zip", tmp_path, "fsdd")).read_bytes()


def test_a_bad_download_is_thrown_away_and_the_next_asks_anew(tiny_digits, tmp_path, monkeypatch):
    import io
    import zipfile

    import pooch
    source, good = tiny_digits
    (source / "7_theo_0.wav").write_bytes(b"tampered")
    tampered = Path(shutil.make_archive(tmp_path / "bad", "zip", tmp_path, "fsdd")).read_bytes()
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    sent = [b"<html>please log in</html>", good[:len(good) // 2], empty.getvalue(), tampered, good]

    def retrieve(url, known_hash, fname, path, processor, progressbar):
        file = Path(path) / fname
        file.write_bytes(sent.pop(0))
        return processor(str(file), "download", None)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    for _ in range(4):
        with pytest.raises(RuntimeError, match="could not fetch .*--from FOLDER"):
            human_digits.load_human_digits(download=True)
        assert not list((tmp_path / "cache").iterdir()), "nothing bad stays"
    assert len(human_digits.load_human_digits(download=True).clips) == 40 and not sent
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["human-digits"]


def test_install_takes_no_pipe_and_leaves_its_source(tiny_digits, tmp_path):
    source, _ = tiny_digits
    there = human_digits.install(tmp_path / "fsdd")
    assert human_digits.install(there) == there and human_digits.available(), "they are there already"
    inside = there / "recordings"
    shutil.copytree(source, inside)
    with pytest.raises(ValueError, match="which would be replaced: move it elsewhere"):
        human_digits.install(inside)
    assert inside.is_dir()
    if hasattr(os, "mkfifo"):
        (source / "7_theo_0.wav").unlink()
        os.mkfifo(source / "7_theo_0.wav")
        with pytest.raises(FileNotFoundError, match="7_theo_0.wav is missing"):
            human_digits.install(source)


def test_a_recording_that_was_damaged_in_the_cache_is_one_sentence(tiny_digits):
    there = human_digits.install(tiny_digits[0])
    (there / "0_jackson_0.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="0_jackson_0.wav is damaged: delete"):
        human_digits.load_human_digits()


# ---- a folder of your own recordings

def record(path, sound, rate=8000, **more):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(path, sound, rate, subtype="PCM_16", **more)


def test_people_are_read_at_any_rate_and_brought_to_one(tmp_path):
    loud = np.concatenate([np.zeros(4000), sine[:4000] * 0.6, np.zeros(6000)])
    record(tmp_path / "7_anna_0.wav", loud)
    record(tmp_path / "3_anna_maria_b.WAV", np.stack([loud, loud], 1).repeat(2, 0) * 0.2 + 0.1, 16000, format="WAV")
    record(tmp_path / "0_bo_12.wav", resample(loud, 8000, 44100).clip(-1, 1), 44100)
    (tmp_path / "notes.txt").write_text("who spoke")
    people = human_digits.load_people(tmp_path)
    assert people.words == ["zero", "three", "seven"] and people.speakers == ["bo", "anna_maria", "anna"] and people.held_out.all()
    for clip in people.clips:
        assert clip.dtype == np.float32 and len(clip) == pytest.approx(4000, abs=400)
        assert np.sqrt((clip**2).mean()) == pytest.approx(0.1, rel=0.02) and abs(clip.mean()) < 1e-3
    assert np.corrcoef(people.clips[2][200:3000], people.clips[1][200:3000])[0, 1] > 0.9


@pytest.mark.parametrize("name, sound, says", [
    ("seven_anna_0.wav", sine, "seven_anna_0.wav: name a recording digit_person_take.wav"),
    ("12_anna_0.wav", sine, "12_anna_0.wav: name"), ("7_anna.wav", sine, "7_anna.wav: name"),
    ("7_anna_0.wav", np.zeros(8000), "7_anna_0.wav is silent"), ("7_anna_0.wav", np.full(8000, 0.2), "7_anna_0.wav is silent"),
    ("7_anna_0.wav", np.tile(sine, 3), "7_anna_0.wav holds 3.0 s of sound"), ("7_anna_0.wav", np.zeros(0), "could not be read")])
def test_what_is_no_spoken_digit_is_named(tmp_path, name, sound, says):
    record(tmp_path / "1_bo_0.wav", sine[:4000])
    record(tmp_path / name, sound)
    with pytest.raises(ValueError, match=says):
        human_digits.load_people(tmp_path)


def test_a_folder_without_recordings(tmp_path):
    (tmp_path / "7_anna_0.mp3").write_bytes(b"")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="holds no recordings"):
            human_digits.load_people(folder)
    (tmp_path / "7_anna_0.wav").write_text("a letter")
    with pytest.raises(ValueError, match="7_anna_0.wav could not be read"):
        human_digits.load_people(tmp_path)


# ---- machines: a deep path, a full disk, a folder that nobody may write to, two containers

DEEP = "from mmcourse.world import speech; import hashlib; s, r = next(speech.speak([('cat', 'en-us', 50, 160)])); " \
       "print(r, hashlib.sha256(s.tobytes()).hexdigest())"


def test_espeak_works_however_deep_it_is_installed(tmp_path):
    """espeak-ng keeps 160 bytes for the path of its data, and a letter of two bytes counts twice."""
    import espeakng_loader
    source = Path(espeakng_loader.__file__).parent
    deep = tmp_path / "ö" / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    shutil.copytree(source, deep / "espeakng_loader")
    assert len(os.fsencode(deep)) > 200
    said = [subprocess.run([sys.executable, "-c", DEEP], capture_output=True, text=True,
                           env={**os.environ, "PYTHONPATH": os.pathsep.join([*places, str(ROOT)])}) for places in ([], [str(deep)])]
    assert said[0].returncode == said[1].returncode == 0, said[1].stderr
    assert said[0].stdout == said[1].stdout and said[0].stdout.startswith("22050 ")


def test_made_speech_is_used_though_it_cannot_be_kept(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(speech.np, "savez", full)
    with pytest.warns(UserWarning, match=r"made anew next time: .*speech-.*npz could not be written \(No space .* MMCOURSE_CACHE names"):
        corpus = load_speech(progress=False, words=("cat",))
    assert len(corpus) == 96 and not list(tmp_path.iterdir())


def on_a_small_disk(tmp_path, size: str):
    """A disk of its own of so many bytes, if this user may mount one."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path)], capture_output=True)
    if done.returncode:
        pytest.skip("may not mount a small disk here")


def test_a_disk_that_is_really_full(tmp_path, monkeypatch):
    on_a_small_disk(tmp_path, "64k")
    try:
        monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
        with pytest.warns(UserWarning, match="could not be written .* MMCOURSE_CACHE names another folder"):
            assert len(load_speech(progress=False, words=("cat",))) == 96
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("settings, says", [
    ({"HOME": "/dev/null", "XDG_CACHE_HOME": "", "MMCOURSE_CACHE": ""}, "/dev/null/.cache/mmcourse, cannot be made"),
    ({"MMCOURSE_CACHE": "a file"}, "a file, cannot be made"), ({"MMCOURSE_CACHE": "~nosuchuser/x"}, "there is no folder for generated data")])
def test_a_cache_that_cannot_be_is_one_sentence(tmp_path, monkeypatch, capsys, settings, says):
    monkeypatch.chdir(tmp_path)
    Path("a file").write_text("")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OSError, match=f"{says}.*set MMCOURSE_CACHE to a folder that you may write to"):
        load_speech(progress=False)
    for argv in (["data"], ["data", "--where"], ["data", "human-digits"]):
        assert cli.main(argv) == 1
        said = capsys.readouterr().err
        assert says in said and "set MMCOURSE_CACHE" in said and "Traceback" not in said


def test_two_who_fill_an_empty_cache_at_once_both_have_it(tmp_path):
    """As in two containers: nothing tells their process numbers apart."""
    code = ("import os; os.getpid = lambda: 1; from mmcourse.world.speech import load_speech; "
            "print(len(load_speech(progress=False, words=('cat', 'dog'))))")
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                                env={**os.environ, "MMCOURSE_CACHE": str(tmp_path)}) for _ in range(2)]
    assert [(process.communicate()[0].strip(), process.returncode) for process in running] == [("192", 0)] * 2
    assert len(list(tmp_path.iterdir())) == 1
