"""`mmcourse leaderboard`: CPU minutes until every direction stands at 95 % of its ceiling.

An entry is computed from two files that the recipes and `mmcourse evaluate` wrote: nothing in it is typed. The rules are in
data/leaderboard/README.md, whose table this verb writes.
"""
import argparse
from pathlib import Path

from mmcourse.files import read_json, write_json, write_text
from mmcourse.matrix import FIRST, ROWS, split_of
from mmcourse.paths import CHECKPOINTS, DATA, RESULTS

FOLDER = DATA / "leaderboard"
SHARE = 0.95                            # of the ceiling
QUESTIONS = 500                         # of each direction, at least
PARTS = ("bpe", "vqvae", "codec", "transformer")        # what an answer goes through, from question to tokens and back
BEGIN, END = "<!-- the table: written by `mmcourse leaderboard` -->", "<!-- end of the table -->"


def direction_row(row: dict) -> dict:
    """Where a direction stands: its score, the bar (`SHARE` of its ceiling; of 1 where there is no ceiling: what was said can be
    known exactly) and the verdict by the score's 95 % interval."""
    bar = SHARE * (1.0 if row["ceiling"] is None else row["ceiling"])
    verdict = "holds" if row["low"] >= bar else "fails" if row["high"] < bar else "undecided"
    return {"score": row["score"], "low": row["low"], "high": row["high"], "bar": round(bar, 4), "verdict": verdict}


def make_entry(name: str, evaluated: dict, manifest: dict) -> dict:
    """An entry from what `mmcourse evaluate --json` says and a manifest of checkpoints. ValueError for what the rules do not
    admit."""
    if split_of(evaluated["seed"]) != "test" or evaluated["n"] < QUESTIONS:
        raise ValueError(f"an entry is measured on {QUESTIONS} test questions or more (`mmcourse evaluate --n {QUESTIONS} --seed "
                         f"1000` or a higher seed), got n {evaluated['n']} and seed {evaluated['seed']}")
    absent = [part for part in PARTS if "cpu_minutes" not in manifest.get(part, {})]
    if absent:
        raise ValueError(f"the manifest does not say how many CPU minutes these parts took: {', '.join(absent)}")
    elsewhere = [part for part in PARTS if not manifest[part].get("device", "cpu").startswith("cpu")]
    if elsewhere:
        raise ValueError(f"this is about CPU minutes, and these parts were trained elsewhere: {', '.join(elsewhere)}")
    directions = {}
    for said, direction, measure, _ in ROWS:
        if said in FIRST:
            row = evaluated["matrix"].get(direction, {}).get(measure)
            if row is None:
                raise ValueError(f"{direction} was not measured: leave --only out of `mmcourse evaluate`")
            directions[said] = direction_row(row)
    minutes = {part: manifest[part]["cpu_minutes"] for part in PARTS}
    return {"name": name, "n": evaluated["n"], "seed": evaluated["seed"], "minutes": minutes,
            "total": round(sum(minutes.values()), 1), "directions": directions,
            "identities": {part: manifest[part].get("identity", manifest[part]["sha256"]) for part in PARTS}}


def standing(entry: dict) -> int:
    """How many directions surely stand where they should."""
    return sum(row["verdict"] == "holds" for row in entry["directions"].values())


def ranked(entries: list[dict]) -> list[dict]:
    """Those that stand in more directions first, and of equals those that took fewer minutes."""
    return sorted(entries, key=lambda entry: (-standing(entry), entry["total"]))


def table(entries: list[dict]) -> str:
    """The entries as Markdown: who, minutes, and each direction's score beside its bar."""
    def cell(row: dict) -> str:
        mark = {"holds": "**{}**", "undecided": "{} (undecided)", "fails": "{} (below)"}[row["verdict"]]
        return mark.format(f"{100 * row['score']:.1f}") + f" / {100 * row['bar']:.1f}"
    head = ["entry", "CPU minutes", "all seven?", *FIRST]
    lines = [head, ["---"] * len(head)]
    for entry in ranked(entries):
        stands = standing(entry)
        whole = "yes" if stands == len(FIRST) else f"no: {stands} of {len(FIRST)}"
        lines.append([entry["name"], f"{entry['total']:.0f}", whole, *(cell(entry["directions"][said]) for said in FIRST)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_table(folder: Path) -> None:
    """Put the table of all entries of a folder into its README.md. ValueError if that has no place for it."""
    page = folder / "README.md"
    text = page.read_text("utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{page} has no place for the table: restore the lines {BEGIN!r} and {END!r}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    entries = [read_json(file) for file in sorted(folder.glob("*.json"))]
    write_text(page, f"{before}{BEGIN}\n{table(entries)}\n{END}{after}")


def leaderboard(argv: list[str]) -> int:
    """Compute an entry, keep it, and write the table."""
    parser = argparse.ArgumentParser(prog="mmcourse leaderboard", description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="?", default="reference", help="of the entry (default: %(default)s, the shipped model)")
    parser.add_argument("--evaluate", type=Path, default=RESULTS / "evaluate.json",
                        help="what `mmcourse evaluate --json` printed")
    parser.add_argument("--manifest", type=Path, default=CHECKPOINTS / "manifest.json",
                        help="of the checkpoints that were measured")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the entries and their page")
    args = parser.parse_args(argv)
    entry = make_entry(args.name, read_json(args.evaluate), read_json(args.manifest))
    write_json(args.folder / f"{args.name}.json", entry)
    write_table(args.folder)
    for said, row in entry["directions"].items():
        print(f"{said:<36} {100 * row['score']:5.1f} %  bar {100 * row['bar']:5.1f} %  {row['verdict']}")
    print(f"{entry['name']}: {entry['total']:.0f} CPU minutes; {standing(entry)} of {len(FIRST)} directions stand")
    return 0
