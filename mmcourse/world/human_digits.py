"""Human voices: spoken digits of the Free Spoken Digit Dataset (CC BY-SA 4.0). The course works without them.

The recordings come from the data set's public home, at one commit, and each file is checked against its own pinned hash
(`data/human_digits.sha256`, in the format of the program sha256sum);
`mmcourse data human-digits --from FOLDER` takes them from a folder on disk instead.
"""
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcourse.paths import DATA, cache_dir
from mmcourse.world.scene import DIGITS

HOME = "https://github.com/Jakobovski/free-spoken-digit-dataset"
COMMIT = "26eb9aa"
SPEAKERS = ("jackson", "nicolas", "theo", "yweweler")
HELD_OUT_SPEAKER = "yweweler"                     # nothing trains on this voice
PER_DIGIT = 50                                    # recordings of each digit by each speaker
MANIFEST = DATA / "human_digits.sha256"            # a line for each recording: its SHA-256, its name


@dataclass
class HumanDigits:
    """`clips`: list of float32 (samples,) at 8 kHz, RMS 0.1; `words`: "zero" ... "nine"; `speakers`: names;
    `held_out`: bool array, true for `HELD_OUT_SPEAKER` and for the data set's own test set (indices 0 to 4).
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
    return sorted(f"{digit}_{speaker}_{i}.wav" for digit in range(10) for speaker in SPEAKERS for i in range(PER_DIGIT))


def hashes(source) -> dict[str, str]:
    """{name: SHA-256} of every recording in a folder. FileNotFoundError if one is missing."""
    found = {}
    for name in names():
        path = Path(source) / name
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: {source} does not hold the {len(names())} recordings")
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def write_manifest(source, path: Path | None = None) -> None:
    """Pin the recordings of a folder: what `check` compares with from then on."""
    lines = [f"{value}  {name}\n" for name, value in hashes(source).items()]
    (path or MANIFEST).write_text("".join(lines), encoding="utf-8")


def pinned() -> dict[str, str]:
    """{name: SHA-256} as shipped."""
    lines = MANIFEST.read_text(encoding="utf-8").splitlines()
    return {name: value for value, name in (line.split("  ") for line in lines)}


def check(source) -> None:
    """ValueError that names the files of a folder which are not the pinned ones; FileNotFoundError if one is missing."""
    known = pinned()
    wrong = [name for name, value in hashes(source).items() if known.get(name) != value]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{', '.join(wrong[:3])}{more} in {source}: not the recording of commit {COMMIT} of {HOME} "
                         f"(SHA-256 other than in {MANIFEST.name}). Take a fresh copy")


def install(source) -> Path:
    """Copy the recordings from a folder on disk (it, or its `recordings` folder, holds the files) into the cache."""
    source = Path(source).expanduser()
    source = source / "recordings" if (source / "recordings").is_dir() else source
    check(source)
    part = folder().with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in names():
        shutil.copyfile(source / name, part / name)
    shutil.rmtree(folder(), ignore_errors=True)
    return part.rename(folder())


def fetch(progress: bool = True) -> Path:
    """Download the recordings from the data set's home into the cache, and check them."""
    import pooch
    archive = f"{HOME}/archive/{COMMIT}.zip"
    try:                              # the archive's own bytes may change with the host's software: its files are checked
        files = pooch.retrieve(archive, known_hash=None, fname=f"fsdd-{COMMIT}.zip", path=cache_dir(),
                               processor=pooch.Unzip(extract_dir=f"fsdd-{COMMIT}"), progressbar=progress)
    except Exception as error:
        raise RuntimeError(f"could not fetch {archive} ({error}). The course works without it; with a copy on disk, run "
                           "`python -m mmcourse data human-digits --from FOLDER`") from error
    inside = {Path(name).parent for name in files if name.endswith("0_jackson_0.wav")}
    if not inside:
        raise RuntimeError(f"{archive} holds no recordings")
    return install(inside.pop())


def available() -> bool:
    """True if the recordings are in the cache."""
    return all((folder() / name).exists() for name in names())


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
        samples, rate = soundfile.read(folder() / name, dtype="float32")
        if rate != 8000 or samples.ndim != 1:
            raise ValueError(f"{folder() / name} is damaged: delete {folder()} and fetch it again")
        clips.append(normalize_rms(samples).astype(np.float32))
        words.append(DIGITS[int(digit)])
        speakers.append(speaker)
        held_out.append(speaker == HELD_OUT_SPEAKER or int(index) < 5)
    return HumanDigits(clips, words, speakers, np.array(held_out))


def main(argv: list[str] | None = None) -> None:
    """`mmcourse data human-digits [--from FOLDER]`."""
    import argparse
    parser = argparse.ArgumentParser(prog="mmcourse data human-digits", description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="source", help="a folder on disk that holds the recordings")
    args = parser.parse_args(argv)
    print(f"human digits: {install(args.source) if args.source else fetch()}")
