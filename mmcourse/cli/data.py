"""`mmcourse data`: make the generated data now instead of at first use."""
from __future__ import annotations

import argparse
import sys

from mmcourse.paths import cache_dir


def data(argv: list[str]) -> int:
    """Make the generated data (speech) if it is not there, check its hash, and say where it is kept."""
    parser = argparse.ArgumentParser(prog="mmcourse data", description="Make and check the generated data.")
    parser.add_argument(
        "what", nargs="?", choices=["speech", "human-digits"], default="speech",
        help="speech: the words of the world in synthetic voices; human-digits: recordings of people, fetched",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="source", help="human-digits: take them from this folder, not the network"
    )
    parser.add_argument("--where", action="store_true", help="only say where it is kept")
    args = parser.parse_args(argv)
    try:
        if args.what == "human-digits" and not args.where:
            from mmcourse.world import human_digits

            print(
                f"human digits: {human_digits.install(args.source) if args.source else human_digits.fetch()}"
            )
        elif not args.where:
            from mmcourse.world.speech import load_speech

            corpus = load_speech()
            words, voices = len(set(corpus.words)), len(set(corpus.voices))
            print(f"speech: {len(corpus):,} clips of {words} words in {voices} voices, hash checked")
        folder = cache_dir()
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        print(f"kept in {folder} ({size / 1e6:.0f} MB; MMCOURSE_CACHE moves it; deleted, it is made again)")
    except (RuntimeError, OSError, ValueError) as error:
        print(f"mmcourse data: {error}", file=sys.stderr)
        return 1
    return 0
