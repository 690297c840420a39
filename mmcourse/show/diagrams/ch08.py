"""Chapter 08: the experiment's four arms at a glance, and in which order each of them fills a picture."""
from matplotlib import patches

from mmcourse.show.diagrams import FILLS, PAGE, Canvas, after, before

OPEN = "#FFFFFF"


def arms(caption: str = "") -> None:
    """Three prompts, one trunk, four ways to paint, and what turns each one's answer into pixels."""
    sheet = Canvas(90, 40)
    sheet.text(9, 38, "told the word in", bold=True)
    piece, letters = ("class", 6), tuple((letter, 2.2) for letter in "class")
    for y, name, cells in ((28.5, "letters", letters), (19.5, "a piece (a number)", (piece,)), (10.5, "both", (piece, *letters))):
        x = 9 - sum(wide for _, wide in cells) / 2
        sheet.text(9, y + 4.6, name)
        for cell, wide in cells:
            sheet.tokens(x, y, ("328" if cell == "class" else cell,), "text", width=wide, height=3, size=8)
            x += wide
    trunk = sheet.box(22, 13, 13, 18, "one trunk:\n4 blocks of\nchapter 05\n\nplaces of the\nprompt, then\n32 of picture",
                      bold=True, size=8)
    sheet.arrow((15.5, 29.5), (22, 26))
    sheet.arrow((13, 21.2), before(trunk))
    sheet.arrow((18, 13), (22, 17))
    rows = (("in order", "sees what is before it\n32 passes, a place each", "token", "256 ids"),
            ("surest first", "sees all that is known\na few passes, all places", "token", "256 ids"),
            ("flow on pixels", "sees all, noisy\na few passes, all places", "image", "192 pixels"),
            ("flow on latents", "sees all, noisy\na few passes, all places", "fixed", "16 numbers"))
    sheet.text(46, 38, "how it paints", bold=True)
    sheet.text(65, 38, "at each place", bold=True)
    decoder = sheet.box(73, 15.5, 7.5, 17, "the\ntokenizer's\ndecoder\n(03)", size=8)
    sheet.box(83.5, 14, 6, 10, "picture", "image", size=8)
    for i, (name, how, kind, place) in enumerate(rows):
        y = 30 - 9.3 * i
        arm = sheet.box(39, y - 0.5, 17, 6.6, f"{name}\n{how}", size=7.5)
        what = sheet.box(59.5, y, 10.5, 5.4, place, kind, size=8)
        sheet.arrow((35, 22 + 3 * (1 - i)), before(arm))
        sheet.arrow(after(arm), before(what))
        if name == "flow on pixels":
            sheet.axes.plot([70, 81], [14.1, 14.1], color=PAGE, linewidth=1.3, linestyle="--")
        else:
            sheet.arrow(after(what), (73, min(31, max(16.5, y + 2.7))))
    sheet.arrow(after(decoder), (83.5, 21))
    sheet.arrow((81, 14.1), (83.5, 15.5), dashed=True)
    sheet.text(78, 11.8, "pixels as\nthey are")
    sheet.show("A word is told in letters, in pieces, or in both. One trunk of four blocks reads it, with 32 places of a "
               "picture. Four painters have this trunk: in order, one of 256 ids a place, 32 passes; surest first, the same "
               "ids, all places in a few passes; a flow on 192 pixels a place; a flow on 16 latent numbers a place. The "
               "tokenizer's decoder makes pictures of ids and latents; the flow on pixels needs none.", caption)


def orders(caption: str = "") -> None:
    """Which places of a picture are decided after each quarter of the passes: in order, surest first, from noise."""
    sheet = Canvas(84, 29)
    cell, known, wide = 1.75, FILLS["token"], 8
    turns = [13, 9, 21, 2, 28, 18, 10, 5, 26, 14, 30, 0, 22, 7, 17, 24, 11, 3, 29, 19, 1, 15, 27, 8, 12, 31, 4, 20, 16, 6, 23, 25]
    counts = {"in order": (0, 8, 16, 24, 32), "surest first": (0, 3, 10, 20, 32)}
    ways = (("in order", "each sees\nthose before it"), ("surest first", "each sees\nall that are known"),
            ("from noise", "all at once, clearer\neach time"))
    for r, (name, how) in enumerate(ways):
        y = 20 - 9 * r
        sheet.text(8, y + 5.4, name, bold=True, size=9)
        sheet.text(8, y + 2, how)
        for step in range(5):
            for i in range(32):
                x, top = 18.5 + 13.2 * step + cell * (i % wide) * 0.85, y + 6 - cell * (i // wide)
                if r < 2:
                    done = (i if r == 0 else turns[i]) < counts[name][step]
                    look = {"facecolor": known if done else OPEN}
                else:
                    look = {"facecolor": known, "alpha": 0.08 + 0.92 * step / 4}
                sheet.axes.add_patch(patches.Rectangle((x, top), cell * 0.85, cell, edgecolor="#5B6670", linewidth=0.6, **look))
            if r == 2:
                sheet.text(24.4 + 13.2 * step, 0.9, ("nothing", "a quarter", "half", "three quarters", "all passes")[step])
    sheet.show("A picture is 4 rows of 8 places. In order: after each quarter of the passes a quarter of the places is filled, "
               "from the upper left on. Surest first: scattered places, 3, 10, 20 and then all 32, few at first and many at the "
               "end. From noise: all places at once, each a little clearer after each pass.", caption)
