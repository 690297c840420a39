"""Human voices: spoken digits of the Free Spoken Digit Dataset (CC BY-SA 4.0). The course works without them.

The recordings come from the data set's public home, at one commit, and each file is checked against its own
pinned hash (`data/human_digits.sha256`, in the format of the program sha256sum); `mmcourse data human-digits
--from FOLDER` takes them from a folder on disk instead. `load_people` reads a folder of your own recordings,
so that a model can be tested on people whom nobody who built it has heard.
"""
import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcourse.paths import DATA, cache_dir
from mmcourse.world.scene import DIGITS

HOME = "https://github.com/Jakobovski/free-spoken-digit-dataset"
COMMIT = "26eb9aa"
SPEAKERS = ("jackson", "nicolas", "theo", "yweweler")
# Nothing trains on this voice, but settings and recipes were chosen while looking at scores on it: it is
# validation, not test.
VALIDATION_SPEAKER = "yweweler"
LONGEST_DIGIT = 2.0                               # seconds of sound in a recording of `load_people`, at most
PER_DIGIT = 50                                    # recordings of each digit by each speaker
MANIFEST = DATA / "human_digits.sha256"            # a line for each recording: its SHA-256, its name


@dataclass
class HumanDigits:
    """`clips`: list of float32 (samples,) at 8 kHz, RMS 0.1; `words`: "zero" ... "nine"; `speakers`: names;
    `held_out`: bool array, true for what nothing trains on: `VALIDATION_SPEAKER`, the data set's own test set
    (takes 0 to 4), and all that `load_people` reads.
    """
    clips: list
    words: list
    speakers: list
    held_out: np.ndarray


def folder() -> Path:
    """Where the recordings lie once they are there."""
    return cache_dir() / "human-digits"


def names() -> list[str]:
    """The file names, sorted: `{digit}_{speaker}_{index}.wav`."""
    return sorted(f"{digit}_{speaker}_{i}.wav"
                  for digit in range(10) for speaker in SPEAKERS for i in range(PER_DIGIT))


def hashes(source) -> dict[str, str]:
    """{name: SHA-256} of every recording in a folder. FileNotFoundError if one is missing."""
    found = {}
    for name in names():
        path = Path(source) / name
        if not path.is_file():                          # a named pipe would never end
            raise FileNotFoundError(f"{path} is missing: {source} does not hold the {len(names())} "
                                    "recordings")
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def pinned() -> dict[str, str]:
    """{name: SHA-256} as shipped."""
    lines = MANIFEST.read_text(encoding="utf-8").splitlines()
    return {name: value for value, name in (line.split("  ") for line in lines)}


def check(source) -> None:
    """ValueError that names the files of a folder which are not the pinned ones.

    FileNotFoundError if one is missing.
    """
    known = pinned()
    wrong = [name for name, value in hashes(source).items() if known.get(name) != value]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{', '.join(wrong[:3])}{more} in {source}: not the recording of commit {COMMIT} of "
                         f"{HOME} (SHA-256 other than in {MANIFEST.name}). Take a fresh copy")


def install(source) -> Path:
    """Copy the recordings into the cache from a folder on disk that holds them, or its `recordings`."""
    source = Path(source).expanduser().resolve()
    source = source / "recordings" if (source / "recordings").is_dir() else source
    check(source)
    if source == folder().resolve():
        return folder()                                 # they are there, and are the right ones
    if folder().resolve() in source.parents:
        raise ValueError(f"{source} lies in {folder()}, which would be replaced: move it elsewhere first")
    with tempfile.TemporaryDirectory(prefix=".human-digits-", dir=cache_dir()) as scratch:
        part = Path(scratch) / "part"
        part.mkdir()
        for name in names():
            shutil.copyfile(source / name, part / name)
        check(part)
        shutil.rmtree(folder(), ignore_errors=True)
        return part.rename(folder())


def fetch(progress: bool = True) -> Path:
    """Download the recordings from the data set's home into the cache, and check them. What was fetched in vain is
    thrown away, so that the next call asks anew."""
    import pooch
    archive = f"{HOME}/archive/{COMMIT}.zip"
    with tempfile.TemporaryDirectory(prefix=".human-digits-", dir=cache_dir()) as scratch:
        try:         # the archive's own bytes may change with the host's software: its files are checked
            files = pooch.retrieve(archive, known_hash=None, fname="fsdd.zip", path=scratch,
                                   processor=pooch.Unzip(extract_dir="fsdd"), progressbar=progress)
            inside = {Path(name).parent for name in files if name.endswith("0_jackson_0.wav")}
            if not inside:
                raise ValueError("it holds no recordings")
            return install(inside.pop())
        except Exception as error:
            raise RuntimeError(f"could not fetch {archive} ({error}). The course works without it; with a copy "
                               "on disk, run `python -m mmcourse data human-digits --from FOLDER`") from error


def available() -> bool:
    """True if the recordings are in the cache."""
    return all((folder() / name).is_file() for name in names())


def load_human_digits(download: bool = False) -> HumanDigits | None:
    """The recordings, or None if they are not in the cache (then `download=True` fetches them first)."""
    import soundfile

    from mmcourse.world.speech import normalize_rms
    if not available():
        if not download:
            return None
        fetch()
    clips, words, speakers, held_out = [], [], [], []
    for name in names():
        digit, speaker, index = name.removesuffix(".wav").split("_")
        try:
            samples, rate = soundfile.read(folder() / name, dtype="float32")
        except (soundfile.LibsndfileError, TypeError):
            rate = 0
        if rate != 8000 or samples.ndim != 1:
            raise ValueError(f"{folder() / name} is damaged: delete {folder()} and fetch it again")
        clips.append(normalize_rms(samples).astype(np.float32))
        words.append(DIGITS[int(digit)])
        speakers.append(speaker)
        held_out.append(speaker == VALIDATION_SPEAKER or int(index) < 5)
    return HumanDigits(clips, words, speakers, np.array(held_out))


def load_people(source) -> HumanDigits:
    """Recordings of spoken digits in a folder: one a file, `{digit}_{person}_{take}.wav`, at any rate.

    They are brought to 8 kHz and one channel, silence at both ends is cut, loudness is set. FileNotFoundError
    if there are none; ValueError that names the file for one that has another name, cannot be read, is silent
    or holds more than `LONGEST_DIGIT` seconds.
    """
    source = Path(source).expanduser()
    paths = sorted(p for p in source.glob("*") if p.suffix.lower() == ".wav")
    if not paths:
        raise FileNotFoundError(f"{source} holds no recordings: put files such as 7_anna_0.wav there "
                                "(digit_person_take.wav)")
    found = [re.fullmatch(r"(\d)_(.+)_([^_]+)", path.stem) for path in paths]
    if None in found:
        raise ValueError(f"{paths[found.index(None)].name}: name a recording digit_person_take.wav, "
                         "for example 7_anna_0.wav")
    return HumanDigits([_read_digit(path) for path in paths], [DIGITS[int(match[1])] for match in found],
                       [match[2] for match in found], np.ones(len(paths), bool))


def _read_digit(path: Path) -> np.ndarray:
    """One recording of `load_people` as a clip."""
    import soundfile

    from mmcourse.world.speech import SAMPLE_RATE, normalize_rms, resample, to_mono, trim
    try:
        samples, rate = soundfile.read(path, dtype="float64")
        sound = to_mono(samples)
        sound = trim(resample(sound - sound.mean(), rate))
    except (soundfile.LibsndfileError, ValueError) as error:
        raise ValueError(f"{path.name} could not be read as a recording ({error}): "
                         "save it as an ordinary WAV file") from None
    if np.abs(sound).max() < 1e-4:
        raise ValueError(f"{path.name} is silent: record it again, nearer to the microphone")
    seconds = len(sound) / SAMPLE_RATE
    if seconds > LONGEST_DIGIT:
        raise ValueError(f"{path.name} holds {seconds:.1f} s of sound: one spoken digit a recording, "
                         f"{LONGEST_DIGIT:.0f} s at most, and little noise around it")
    return normalize_rms(sound).astype(np.float32)


def main(argv: list[str] | None = None) -> None:
    """`mmcourse data human-digits [--from FOLDER]`."""
    import argparse
    parser = argparse.ArgumentParser(prog="mmcourse data human-digits", description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="source", help="a folder on disk that holds the recordings")
    args = parser.parse_args(argv)
    print(f"human digits: {install(args.source) if args.source else fetch()}")
