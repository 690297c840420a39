"""Each chapter as a reader meets it: it opens whole, its widgets move, and nothing is asked of another machine."""
import sys
from pathlib import Path

import pytest

from mmcourse.cli import notebooks
from mmcourse.cli.notebooks import source

sys.path.insert(0, str(Path(__file__).parent))
from slices import names, needed  # noqa: E402

pytestmark = pytest.mark.slow
CHAPTERS = [path.name for path in notebooks.all_notebooks()]


def with_widgets(cells):
    """The indices of the cells that leave a slider."""
    return [i for i, c in enumerate(cells) if c["cell_type"] == "code" and "interact(" in source(c)]


def test_a_slice_holds_what_a_cell_needs_and_no_more():
    cells = [{"cell_type": "code", "source": text} for text in
             ("import numpy as np", "a = 1", "b = 2", "def f(x):\n    return x + a", "def g(b):\n    return b", "f(np.ones(2))")]
    assert needed(cells, 5) == [0, 1, 3, 5]
    assert names("def g(b):\n    c = b\n    return c + d") == ({"g"}, {"d"})


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_opens_whole_and_its_widgets_move(open_chapter, name):
    tab = open_chapter(name)
    assert seen(tab.page) == [], "before anything ran"
    for index in with_widgets(tab.cells):
        for i in needed(tab.cells, index):
            tab.run(i)
        move_sliders(tab, index)
    assert tab.complaints() == []


def seen(page) -> list[str]:
    """What a reader would frown at on a page that nothing was run on yet."""
    return page.evaluate("""() => {
        const found = [];
        for (const image of document.querySelectorAll('.jp-Notebook img'))
            if (image.complete && !image.naturalWidth) found.push('a broken picture');
        for (const mark of document.querySelectorAll('.jp-Notebook .fa-unlink, .jp-Notebook .fa-chain-broken'))
            found.push('a broken widget: ' + mark.parentElement.innerText.slice(0, 80));
        for (const area of document.querySelectorAll('.jp-Notebook .jp-OutputArea-output')) {
            if (/[Mm]odel not found|Error displaying widget|Loading widget/.test(area.innerText))
                found.push('a widget that is not there: ' + area.innerText.slice(0, 80));
            if (area.scrollWidth > area.clientWidth + 2 && getComputedStyle(area).overflowX === 'visible')
                found.push('an output wider than the page: ' + area.innerText.slice(0, 80));
        }
        for (const code of document.querySelectorAll('.jp-Notebook .jp-CodeCell .cm-scroller'))
            if (code.scrollWidth > code.clientWidth + 2)
                found.push('code that is cut off: ' + code.innerText.split('\\n').sort((a, b) => b.length - a.length)[0]);
        return found;
    }""")


def shown(tab, index: int) -> str:
    """The pictures and the text of a cell's output, as one string."""
    return tab.page.evaluate("""index => {
        const cell = window.jupyterapp.shell.currentWidget.content.widgets[index].node;
        return [...cell.querySelectorAll('.jp-OutputArea img')].map(i => i.src).join() + cell.querySelector('.jp-OutputArea').innerText;
    }""", index)


def move_sliders(tab, index: int) -> None:
    """Take each slider of a cell a few steps by the keyboard: what the cell shows must change each time."""
    tab.page.evaluate("index => window.jupyterapp.shell.currentWidget.content.widgets[index].node.scrollIntoView()", index)
    cell = tab.cell(index)
    handles = cell.locator(".noUi-handle")
    handles.first.wait_for(timeout=30_000)
    tab.page.wait_for_function("""index => window.jupyterapp.shell.currentWidget.content.widgets[index].node
        .querySelectorAll('.widget-output img, .widget-output p, .widget-output pre').length > 0""", arg=index, timeout=60_000)
    for k in range(handles.count()):
        handle, before = handles.nth(k), shown(tab, index)
        at, top = (float(handle.get_attribute(f"aria-value{end}")) for end in ("now", "max"))
        handle.focus()
        for _ in range(3):
            tab.page.keyboard.press("ArrowLeft" if at >= top else "ArrowRight")
        for _ in range(150):
            tab.page.wait_for_timeout(100)
            if shown(tab, index) != before:
                break
        else:
            raise AssertionError(f"cell {index}: slider {k} moves and nothing changes")
    wrong = cell.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']")
    assert wrong.count() == 0, wrong.first.inner_text()
