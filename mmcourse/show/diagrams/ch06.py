"""Chapter 06: the packed row with its causal mask, the loop that answers, and the strategies around it."""

from matplotlib import patches

from mmcourse.show.diagrams import FILLS, INK, PAGE, Canvas, above, after, before, below

ROW = (("text", ("<text>", "a", "cat", "</text>")), ("image", ("<image>", "75", "132", "…", "132", "</image>")))
PLACES = [(0, 0, 1), (1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 0, 2), (5, 1, 2), (6, 2, 2), ("…", "…", 2), (68, 64, 2), (69, 65, 2)]


def packed_row(caption: str = "") -> None:
    """A caption and a picture as one row, where each token stands, and who may look at whom."""
    sheet, cell, height, x, top = Canvas(88, 29), 5.5, 3.6, 11.5, 19
    names = [(kind, name) for kind, segment in ROW for name in segment]
    for i, ((kind, name), numbers) in enumerate(zip(names, PLACES, strict=True)):
        special = name.startswith("<")
        sheet.axes.add_patch(patches.Rectangle((x + i * cell, top), cell, height, linewidth=0.9, edgecolor="#5B6670",
                                               facecolor="#3B444D" if special else FILLS[kind]))
        sheet.axes.text(x + (i + 0.5) * cell, top + height / 2, name, ha="center", va="center", fontsize=8,
                        color="#FFFFFF" if special else INK)
        for down, number in zip((2, 5, 8), numbers, strict=True):
            sheet.text(x + (i + 0.5) * cell, top - down, str(number), bold=down == 5)
    for down, name in ((2, "place in row"), (5, "position"), (8, "segment")):
        sheet.text(x - 1, top - down, name, align="right", bold=down == 5)
    sheet.text(x + 2 * cell, top + 6, "a caption", size=9)
    sheet.text(x + 7 * cell, top + 6, "a picture: 64 ids", size=9)
    sheet.text(0.5, 5, "Dark: boundary tokens. What goes in for a token is the sum of three vectors: its id's,\n"
               "its position's (counted from the opening token) and its segment's.", align="left")
    _mask(sheet, names, left=70, bottom=4, cell=1.75)
    sheet.show("A caption and a picture in one row: opening token, ids and closing token of each. Below every token its "
               "place in the row, its position counted from the segment's opening token, and its segment. A triangle "
               "shows that each token looks at itself and at those before it.", caption)


def _mask(sheet: Canvas, names: list, left: float, bottom: float, cell: float) -> None:
    """The causal mask as a grid: row i may look at column j <= i."""
    n = len(names)
    for i in range(n):
        for j in range(n):
            colour = FILLS[names[j][0]] if j <= i else "none"
            sheet.axes.add_patch(patches.Rectangle((left + j * cell, bottom + (n - 1 - i) * cell), cell, cell,
                                                   facecolor=colour, edgecolor=PAGE, linewidth=0.5))
    sheet.text(left + n * cell / 2, bottom + n * cell + 2.5, "each token (a line) may\nlook at these (columns)")
    sheet.text(left + n * cell / 2, bottom - 2, "the causal mask")


def answering(caption: str = "") -> None:
    """The loop: one row goes on, token by token, until the closing token of what was wanted."""
    sheet, y = Canvas(88, 22), 9
    row = sheet.box(0.5, y, 15, 6, "the row so far:\nprompt + <image> …", "token")
    model = sheet.box(19.5, y, 12, 6, "transformer", "learned", bold=True)
    logits = sheet.box(35.5, y, 12, 6, "2,567 logits", "fixed")
    mask = sheet.box(51.5, y, 13.5, 6, "modality mask:\nwhat may come?", "fixed")
    choose = sheet.box(69, y, 14, 6, "choose one:\ntemperature, top-p", "fixed")
    for a, b in ((row, model), (model, logits), (logits, mask), (mask, choose)):
        sheet.arrow(after(a), before(b))
    x, low = above(choose)[0], y + 9.5
    sheet.axes.plot([x, x, above(row)[0]], [y + 6, low, low], color=PAGE, linewidth=1.3)
    sheet.arrow((above(row)[0], low), above(row))
    sheet.text(43, low + 1.5, "any other token: append it, go on")
    sheet.arrow(below(choose), (below(choose)[0], 4.6), "", offset=(0, 0))
    sheet.box(66, 0.6, 20, 4, "closing token: done", "image")
    sheet.text(41.5, 6.3, "guidance: ask twice, with the prompt and without,\nand go further in the prompt's direction", size=8)
    sheet.show("The answering loop: the row so far goes through the transformer, which gives a logit for every id; a mask "
               "leaves only the ids that may come; one is chosen and appended, and so on, until the closing token "
               "is chosen.", caption)


def strategies(caption: str = "") -> None:
    """What can be put around the loop: more drafts, words first, more views of the question."""
    sheet = Canvas(88, 33)
    ask = sheet.box(0.5, 26, 10, 5, "question", "sound")
    draft = sheet.box(24, 26, 14, 5, "one draft", "image")
    sheet.arrow(after(ask), before(draft), "the loop, once")
    sheet.text(54, 28.5, "directly: the prompt in, the answer out", align="left", size=9)
    ask = sheet.box(0.5, 18, 10, 5, "question", "sound")
    many = [sheet.box(24 + 0.8 * k, 19.2 - 0.8 * k, 12, 4.2, "8 drafts" if k == 2 else "", "image") for k in range(3)]
    sheet.arrow(after(ask), (24, 20.5), "eight times")
    keep = sheet.box(43, 18, 9, 5, "keep one", "image")
    sheet.arrow(after(many[2]), before(keep))
    sheet.text(54, 20.5, "read back: the draft from which the model\nitself can best tell the question", align="left", size=9)
    ask = sheet.box(0.5, 10, 10, 5, "question", "sound")
    words = sheet.box(20, 10, 9, 5, "“owl”", "text")
    out = sheet.box(43, 10, 9, 5, "draft", "image")
    sheet.arrow(after(ask), before(words))
    sheet.arrow(after(words), before(out), "question + words")
    sheet.text(54, 12.5, "say it first: words, then the answer\nwith both in view", align="left", size=9)
    for k, name in enumerate(("slower", "as it is", "faster")):
        view = sheet.box(0.5, 0.4 + 2.9 * (2 - k), 10, 2.6, name, "sound", size=8)
        guess = sheet.box(20, 0.4 + 2.9 * (2 - k), 9, 2.6, ("“owl”", "“owl”", "“house”")[k], "text", size=8)
        sheet.arrow(after(view), before(guess))
    agreed = sheet.box(43, 2.2, 9, 5, "“owl”", "text")
    sheet.arrow((29.8, 4.7), before(agreed), "likeliest after all")
    sheet.text(54, 4.7, "ask again, another way: several views,\nthe text that is likely after all of them", align="left", size=9)
    sheet.show("Four ways to answer: directly, with one pass of the loop; eight drafts, of which the model keeps the one "
               "from which it can best tell the question; words first, then the answer with question and words in "
               "view; several views of one question, and the text that is likeliest after all of them.", caption)
