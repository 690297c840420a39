"""`mmcourse run`: execute chapters from a clean kernel and save them as a page without a kernel can show them."""
from __future__ import annotations

import argparse
import re

from mmcourse.cli import find_notebook, usage_error
from mmcourse.files import atomic_write

CELL_SECONDS = 900
VIEW = "application/vnd.jupyter.widget-view+json"
_BAR = re.compile(r"\d+%\|.*\|\s*[\d.]+[kM]?/|^\s*\d+\w*it \[|^(?:interactive|FloatProgress|IntProgress|HBox|VBox|Output|Tab)\(")


def tidy(content: dict) -> dict:
    """The notebook without what only a kernel can show: views and state of widgets, bars of progress. Changes it in place.

    A widget's other forms stay, such as the picture that `show.interact` leaves beside its sliders.
    """
    content.get("metadata", {}).pop("widgets", None)
    for cell in content["cells"]:
        cell.get("metadata", {}).pop("execution", None)                 # times of the run: another page at every save
        kept = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            was_widget = data.pop(VIEW, None) is not None
            text = "".join(data.get("text/plain", "")) or "".join(output.get("text", ""))
            bare = set(data) <= {"text/plain"}
            if bare and (_BAR.search(text) or was_widget and not text) and (was_widget or output.get("name") == "stderr"):
                continue
            if kept and output["output_type"] == "stream" and kept[-1].get("name") == output["name"]:
                kept[-1]["text"] = "".join(kept[-1]["text"]) + text     # one print may arrive in two pieces
            else:
                kept.append(output)
        if "outputs" in cell:
            cell["outputs"] = kept
    return content


def run(argv: list[str]) -> int:
    """Execute each chapter in a kernel of its own; a chapter in which a cell fails is left as it was."""
    parser = argparse.ArgumentParser(prog="mmcourse run", description="Execute chapters and save them with their outputs.")
    parser.add_argument("notebooks", nargs="*", help="numbers or files (default: all chapters)")
    args = parser.parse_args(argv)
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    from mmcourse.cli import notebooks

    try:
        paths = [find_notebook(name) for name in args.notebooks] or notebooks.all_notebooks()
    except ValueError as error:
        return usage_error(str(error))
    failed = 0
    for path in paths:
        book = nbformat.read(path, as_version=4)
        client = NotebookClient(book, timeout=CELL_SECONDS, kernel_name="python3", record_timing=False,
                                resources={"metadata": {"path": str(path.parent)}})
        try:
            client.execute()
        except CellExecutionError as error:
            failed += 1
            print(f"{path.name}: {error.ename}: {error.evalue}; the file is as it was")
            continue
        tidy(book)
        with atomic_write(path) as draft:
            draft.write_text(nbformat.writes(book) + "\n", "utf-8")
        print(f"{path.name}: executed and saved")
    return 1 if failed else 0
