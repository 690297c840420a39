"""The any-to-any matrix as people read it: `mmcourse.evaluate` measures it, `data/results/evaluate.json` keeps it.

A matrix is a dict: direction -> measure -> row, and a row has score, low, high, ceiling, reference, chance and n.
"""
FIRST_TEST_SEED = 1000
ROWS = (                        # of the short table: what it says, direction, measure, the same with one draft
    ("draws all that a caption says", "text->image", "exact", "exact_single"),
    ("draws the right things", "text->image", "object", "object_single"),
    ("draws the sign, every letter", "text->image", "word", "word_single"),
    ("describes a picture, every word", "image->text", "exact", "exact_single"),
    ("says a word", "text->speech", "word", "word_single"),
    ("says a word: second listener", "text->speech", "word_second", None),
    ("writes down a word, new voices", "speech->text", "word", "word_single"),
    ("writes down a digit, new person", "speech->text", "human_digit", "human_digit_single"),
    ("names a picture aloud", "image->speech", "word", "word_single"),
    ("draws what it hears", "speech->image", "object", "object_single"),
    ("edits: what was asked is changed", "image+text->image", "change", None),
    ("edits: and the rest is as it was", "image+text->image", "both", "both_single"),
)
FIRST = ("draws all that a caption says", "describes a picture, every word", "says a word", "writes down a word, new voices",
         "names a picture aloud", "draws what it hears", "edits: and the rest is as it was")    # one for each direction
LEGEND = """score: share of right answers on combinations, signs and voices that nothing was trained on, with its 95 % interval.
one draft: the same without choosing the best of eight, one hearing instead of several. ceiling: the same judge on the truth
after the same trip through the tokens and voices; a score may pass it, since the model picks its clearest draft. (r)
reference: another listener on the question itself, not a ceiling. chance: answers moved on to other questions.
Judges: a template reader that knows the pictograms and the sign's font; a net trained on true clips of the voices that the
model imitates and on three people's digits; a second listener, trained on voices that neither has heard."""
# (say first) x (best of eight): direction, and the measures of said and direct, each with eight drafts and with one
PAIRS = {
    "speech->image": ("object_said", "object_said_single", "object_direct", "object_direct_single"),
    "image->speech": ("word", "word_single", "word_direct", "word_direct_single"),
    "image+text->image": ("both_said", "both_said_single", "both_direct", "both_direct_single"),
}


def split_of(seed: int) -> str:
    """`validation` for the seeds at which things were chosen, `test` for the others."""
    return "validation" if seed < FIRST_TEST_SEED else "test"


def short_rows(matrix: dict) -> list[dict]:
    """Twelve rows in plain words, as dicts of strings; what was not measured is left out."""
    out = []
    for name, direction, measure, single in ROWS:
        row = matrix.get(direction, {}).get(measure)
        if not row or row["score"] is None:
            continue
        draft = matrix[direction].get(single, {}).get("score") if single else None
        limit = cell(row["ceiling"])
        if row["ceiling"] is None and row["reference"] is not None:
            limit = cell(row["reference"]) + " (r)"
        out.append({"": name, "score": cell(row["score"]), "95 %": interval(row), "one draft": cell(draft),
                    "ceiling": limit, "chance": cell(row["chance"]), "n": str(row["n"])})
    return out


def first_rows(matrix: dict) -> list[dict]:
    """Of `short_rows` one for each direction: what a first reader looks at."""
    return [row for row in short_rows(matrix) if row[""] in FIRST]


def other_rows(matrix: dict) -> list[dict]:
    """What `first_rows` leaves out of `short_rows`."""
    return [row for row in short_rows(matrix) if row[""] not in FIRST]


def best_and_worst(matrix: dict) -> str:
    """The rows of `first_rows` from the best to the worst score, in words: the controls and parts are not among them."""
    rows = sorted(first_rows(matrix), key=lambda row: -float(row["score"]))
    return "\n".join(f"{100 * float(row['score']):5.1f} % (95 %: {row['95 %']})  {row['']}" for row in rows)


def pair_rows(matrix: dict) -> list[dict]:
    """Said first against direct, with eight drafts and with one. With one draft nothing else differs."""
    out = []
    for direction, measures in PAIRS.items():
        rows = [matrix.get(direction, {}).get(measure) for measure in measures]
        if all(rows):
            names = ("said first, best of 8", "said first, one draft", "direct, best of 8", "direct, one draft")
            cells = {name: f"{cell(row['score'])} ({interval(row)})" for name, row in zip(names, rows)}
            out.append({"": direction.replace("->", " → "), **cells})
    return out


def short_table(matrix: dict) -> str:
    """`short_rows` for a terminal, and what the columns mean."""
    widths = {"": 34, "score": 6, "95 %": 13, "one draft": 10, "ceiling": 9, "chance": 7, "n": 5}

    def line(row: dict) -> str:
        return " ".join(f"{row[key]:<{width}}" if key == "" else f"{row[key]:>{width}}" for key, width in widths.items())
    return "\n".join([line({key: key for key in widths}), *map(line, short_rows(matrix)), "", LEGEND])


def table(matrix: dict) -> str:
    """Every row under its own key."""
    lines = [f"{'direction':<18} {'measure':<22} {'score':>6} {'95 %':>13} {'ceiling':>8} {'reference':>10} "
             f"{'chance':>7} {'n':>5}"]
    for direction, measures in matrix.items():
        for name, value in measures.items():
            if not isinstance(value, dict):
                lines.append(f"{direction:<18} {name:<22} {value}")
                continue
            lines.append(f"{direction:<18} {name:<22} {cell(value['score']):>6} {interval(value):>13} "
                         f"{cell(value['ceiling']):>8} {cell(value['reference']):>10} {cell(value['chance']):>7} {value['n']:>5}")
    return "\n".join(lines)


def cell(value: float | None) -> str:
    """A share with three digits, or a dash for what was not measured."""
    return "-" if value is None else f"{value:.3f}"


def interval(row: dict) -> str:
    """The 95 % interval of a row, or a dash."""
    return "-" if row["score"] is None else f"{row['low']:.3f}-{row['high']:.3f}"
