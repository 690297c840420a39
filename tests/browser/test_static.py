"""The chapters as pages without a kernel: `nbconvert --to html`, opened as a file."""
import sys
from pathlib import Path

import pytest

from mmcourse.cli import notebooks

sys.path.insert(0, str(Path(__file__).parent))
from conftest import Page  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", notebooks.all_notebooks(), ids=lambda p: p.stem)
def test_a_page_without_a_kernel_is_whole(path, chromium, tmp_path):
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="",
                           widget_renderer_url="").from_filename(str(path))
    (tmp_path / "page.html").write_text(page, "utf-8")
    sheet = Page(chromium)
    sheet.page.goto((tmp_path / "page.html").as_uri())
    found = sheet.page.evaluate("""() => {
        const found = [];
        for (const image of document.images)
            if (!image.naturalWidth) found.push('a broken picture');
            else if (!image.alt && image.closest('.jp-OutputArea')) found.push('a picture without a description');
        for (const output of document.querySelectorAll('.jp-OutputArea-output')) {
            const text = output.innerText.trim();
            if (!text && !output.querySelector('img, audio, svg, details')) found.push('an empty box');
            if (/Loading widget|model_id|^(interactive|VBox|HBox|FloatProgress|Output)\\(|\\d+%\\|/.test(text))
                found.push('what only a kernel shows: ' + text.slice(0, 80));
            if (/<IPython|object at 0x/.test(text)) found.push('an address: ' + text.slice(0, 80));
        }
        if (document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]').length)
            found.push('a widget without its kernel');
        return found;
    }""")
    sheet.context.close()
    assert found == []
    assert not [url for url in sheet.remote if not url.startswith("file:")], sheet.remote
