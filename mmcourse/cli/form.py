"""The form that all chapters have: one way to set an exercise, a time that is true, a close that answers the opening.

`problems` is used by `mmcourse check` and by the tests. What a chapter's code says is `mmcourse.cli.notebooks`' business.
"""

from __future__ import annotations

import re

from mmcourse.cli.notebooks import Notebook, exercises_in, source, words

WIDEST = 92  # columns of code that a page of 1,280 pixels shows
WORDS_A_MINUTE = 200
LINES_A_MINUTE = 20
FIGURES_A_MINUTE = 3
SLACK = 0.12  # what is said of the reading time may be this far from what is counted
DIFFICULTY = ("easy", "medium", "hard")
_FOLD = re.compile(r"<details>.*?</details>", re.DOTALL)
_TIME = re.compile(r"\*\*Time:\*\* about (\d+) minutes to read, (\d+) for the exercises?, (\d+) for the machine")
_HEADING = re.compile(r"^### Exercise (\S+) · (\d+) minutes? · (\w+)$", re.MULTILINE)


def main_line(book: Notebook) -> list[dict]:
    """The cells that a first reader reads: all before "In depth"."""
    cells = book.content["cells"]
    end = next((i for i, c in enumerate(cells) if c["cell_type"] == "markdown"
                and re.search(r"^## In depth", source(c), re.MULTILINE)), len(cells))
    return cells[:end]


def reading_minutes(book: Notebook) -> float:
    """Minutes of a first reading, without the exercises: words outside folds, lines of code, figures, each at its pace."""
    code = [cell for cell in main_line(book) if cell["cell_type"] == "code"]
    lines = sum(1 for cell in code for line in source(cell).splitlines() if line.strip() and not line.lstrip().startswith("#"))
    figures = sum("image/png" in output.get("data", {}) for cell in code for output in cell.get("outputs", []))
    return words(book) / WORDS_A_MINUTE + lines / LINES_A_MINUTE + figures / FIGURES_A_MINUTE


def time_problems(book: Notebook) -> list[str]:
    """Is the time that the opening states the time that a reader needs?"""
    from mmcourse import exercises

    said = _TIME.search("\n".join(book.prose))
    if said is None:
        return ["its opening has no line '**Time:** about N minutes to read, N for the exercises, N for the machine.'"]
    found, read, work = [], reading_minutes(book), sum(exercises.get(name).minutes for name in exercises_in(book))
    if abs(int(said[1]) - read) > SLACK * read:
        found.append(f"it promises {said[1]} minutes of reading; words, lines and figures make {read:.0f}")
    if int(said[2]) != work:
        found.append(f"it promises {said[2]} minutes of exercises; they add up to {work}")
    return found


def exercise_problems(book: Notebook) -> list[str]:
    """Has each exercise its heading, a folded hint before its stub, a folded solution right behind it?"""
    from mmcourse import exercises

    found, cells = [], book.content["cells"]
    headings = {m[1]: (int(m[2]), m[3]) for text in book.prose for m in _HEADING.finditer(text)}
    for name in exercises_in(book):
        task = exercises.get(name)
        expected = task.minutes, DIFFICULTY[task.difficulty - 1]
        if headings.get(name) != expected:
            found.append(f"'### Exercise {name} · {expected[0]} minutes · {expected[1]}' is missing")
        at = next(i for i, c in enumerate(cells) if c["cell_type"] == "code" and f'"{name}"' in source(c))
        before = source(cells[at - 1]).partition(f"### Exercise {name} ")[2]
        behind = "\n".join(source(c) for c in cells[at + 1 : at + 3] if c["cell_type"] == "markdown")
        if "<details><summary>Hint</summary>" not in before:
            found.append(f"exercise {name} has no folded hint between its heading and its stub")
        if "<details><summary>Solution</summary>" not in behind.partition("\n#")[0]:
            found.append(f"exercise {name} has no folded solution right behind its stub")
        if re.search(r"\bHint:", _FOLD.sub(" ", before)):
            found.append(f"exercise {name} has a hint outside the fold")
    return found


def close_problems(book: Notebook) -> list[str]:
    """Does the chapter end with what the reader can do now, and five questions whose answers are folded?"""
    text, found = "\n\n".join(book.prose), []
    for heading in ("## What you can do now", "### Five quick questions", "## What works, what does not"):
        if not re.search(rf"^{re.escape(heading)}", text, re.MULTILINE):
            found.append(f"'{heading}' is missing")
    quiz = text.partition("### Five quick questions")[2].partition("\n## ")[0]
    folds = len(re.findall(r"<details>\s*<summary>", quiz))
    if quiz and folds != 5:
        found.append(f"{folds} folded answers under 'Five quick questions'")
    return found


def problems(book: Notebook) -> list[str]:
    """Where a chapter leaves the common form, one sentence each."""
    found = [f"{len(wide)} lines of code are wider than {WIDEST} columns: {wide[0][:60]}..." for wide in
             [[line for cell in book.code for line in source(cell).splitlines() if len(line) > WIDEST]] if wide]
    found += time_problems(book) + exercise_problems(book)
    if not book.path.name.startswith("00"):  # a tour, with nothing to close
        found += close_problems(book)
    return [f"{book.path.name}: {sentence}" for sentence in found]
