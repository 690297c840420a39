"""Chapter 09: two hops from a name to a picture, what is read of each group of names, and the ways to draw one."""
from collections.abc import Sequence

from mmcourse.show.diagrams import Canvas, above, after, before

GROUPS = (("D", "drawn and told", (1, 1, 0, 1)), ("T", "told only", (1, 0, 0, 0)),
          ("E", "told, asked about", (1, 1, 1, 0)), ("N", "never", (0, 0, 0, 0)))
READ = ("told", "asked\nwhat it is", "asked\nabout", "drawn")


def experiment(caption: str = "", name: str = "nevi", noun: str = "fish") -> None:
    """The whole experiment at a glance: the two hops, the four groups, the ways of drawing."""
    sheet = Canvas(88, 54)
    _hops(sheet, name, noun)
    _groups(sheet)
    _ways(sheet, name, noun)
    sheet.show(
        f"Above: two hops. From the name {name!r} to the noun {noun!r}, which is read in sentences, and from the noun to the "
        "picture, which is learned from pictures with captions; a dashed arrow from the name straight to the picture, which "
        "nobody teaches. Below on the left the four groups of names: D is told, asked and drawn; T is told only; E is told, "
        "asked and asked about; N never appears. On the right the ways of drawing a name: directly; in two calls, first the "
        "noun, then the picture; both in one row, taught on D alone; with the fact in the prompt; directly, after training on "
        "its own pictures that were said first; and by a flow.", caption)


def _hops(sheet: Canvas, name: str, noun: str) -> None:
    y = 42
    first = sheet.box(4, y, 15, 5, f"“a {name}”", "text", size=10, bold=True)
    second = sheet.box(37, y, 15, 5, f"“a {noun}”", "text", size=10, bold=True)
    last = sheet.box(70, y, 14, 5, "16 picture\ntokens", "image")
    sheet.arrow(after(first), before(second), f"hop 1: read\n“a {name} is a {noun}.”", offset=(0, -3.2))
    sheet.arrow(after(second), before(last), f"hop 2: drawn\n“a {noun} on the left”", offset=(0, -3.2))
    sheet.arrow(above(first), above(last), bend=-0.13, dashed=True)
    sheet.text(44.5, y + 10.6, "both hops at once, unsaid: taught for D alone", size=8.5, bold=True)


def _groups(sheet: Canvas) -> None:
    left, top, width, height = 14.5, 31.5, 6.4, 4.6
    for k, title in enumerate(READ):
        sheet.text(left + (k + 0.5) * width, top + 2.2, title, size=8)
    for row, (group, meaning, ticks) in enumerate(GROUPS):
        y = top - (row + 1) * (height + 1.2)
        sheet.text(1, y + height / 2 + 1.0, group, size=11, bold=True, align="left")
        sheet.text(1, y + height / 2 - 1.3, meaning, size=8, align="left")
        for k, tick in enumerate(ticks):
            kind = ("image" if k == 3 else "text") if tick else "fixed"
            sheet.box(left + k * width + 0.4, y, width - 0.8, height, "yes" if tick else "–", kind, size=8.5)
    sheet.text(left + 2 * width, 5.2, "60 names each, 5 for each of 12 nouns;\nin the test all are asked and drawn", size=8)


def _ways(sheet: Canvas, name: str, noun: str) -> None:
    x, y, step = 42, 29.4, 4.9
    sheet.text(x, y + 4.6, "ways of drawing a name", size=9, bold=True, align="left")
    rows: Sequence[tuple[str, list[tuple[str, str, float]]]] = (
        ("direct", [(f"a {name} on …", "text", 10.5), ("picture", "image", 7.5)]),
        ("said first,\ntwo calls", [(f"a {name} is what?", "text", 14), (f"a {noun}", "text", 7), ("picture", "image", 7.5)]),
        ("chain,\none row", [(f"a {name} on …", "text", 10.5), (f"a {noun} on …", "text", 10.5), ("picture", "image", 7.5)]),
        ("fact in the\nprompt", [(f"a {name} is a {noun}.", "text", 13), (f"a {name} on …", "text", 10.5),
                                  ("picture", "image", 7.5)]),
        ("distilled", [("trained on its own pictures", "learned", 19), ("then direct", "image", 10)]),
        ("flow", [("encoder that read the same", "learned", 19), ("flow", "image", 10)]))
    for k, (title, boxes) in enumerate(rows):
        low, at, last = y - k * step, x + 8.5, None
        sheet.text(x, low + 1.7, title, size=8, align="left")
        for text, kind, wide in boxes:
            box = sheet.box(at, low, wide, 3.4, text, kind, size=8)
            if last is not None:
                sheet.arrow(after(last), before(box))
            last, at = box, at + wide + 2
