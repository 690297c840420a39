"""Chapter 05: the transformer, and one of its blocks."""

from matplotlib import patches

from mmcourse.show.diagrams import INK, PAGE, Canvas, after, before, below


def _line(sheet: Canvas, *points: tuple[float, float], width: float = 1.3) -> None:
    """A line without a head through these points."""
    sheet.axes.plot(*zip(*points), color=PAGE, linewidth=width, solid_capstyle="round")


def _plus(sheet: Canvas, x: float, y: float) -> None:
    """Where something is added to the stream."""
    sheet.axes.add_patch(patches.Circle((x, y), 1.6, facecolor="#F5F6F7", edgecolor="#5B6670", linewidth=0.9, zorder=3))
    sheet.axes.text(x, y, "+", ha="center", va="center", color=INK, fontsize=11, zorder=4)


def transformer(caption: str = "") -> None:
    """The model from ids to scores, and one block drawn larger: the stream, and the two layers that add to it."""
    sheet = Canvas(88, 44)
    _model(sheet)
    for start, end in (((28.5, 28.2), (2, 21.5)), ((36.5, 28.2), (86, 21.5))):     # the block is the one drawn below
        sheet.axes.plot(*zip(start, end), color=PAGE, linewidth=0.8, linestyle=":")
    _block(sheet)
    sheet.show("Above: tokens become vectors (embedding), pass through three blocks, a norm and an unembedding, and "
               "each place gives the scores of the token that comes next. Below: in a block the residual stream runs "
               "straight through; a norm and attention add to it, then a norm and an MLP.", caption)


def _model(sheet: Canvas) -> None:
    """Ids on the left, blocks in the middle, the token after each place on the right."""
    seen, following = ("<text>", "a", "cat", "on"), ("a", "cat", "on", "the")
    sheet.text(4.5, 42.6, "tokens so far")
    sheet.text(83, 42.6, "what comes next?")
    for i, (here, there) in enumerate(zip(seen, following)):
        y = 37.6 - 3.4 * i
        sheet.tokens(0.5, y, [here], "token", width=8, height=3.0)
        sheet.tokens(79, y, [there], "token", width=8, height=3.0)
    embed = sheet.box(12, 28.2, 12.5, 12.4, "embedding\n\ntoken vector\n+ position\n+ segment")
    sheet.arrow((8.5, 34.4), before(embed))
    last = embed
    for i in range(3):
        block = sheet.box(28.5 + 10.5 * i, 28.2, 8, 12.4, f"block\n{i + 1}", bold=True)
        sheet.arrow(after(last), before(block))
        last = block
    norm = sheet.box(60, 28.2, 4.5, 12.4, "n\no\nr\nm")
    head = sheet.box(67, 28.2, 9, 12.4, "un-\nembedding\n\na score for\neach id", size=8)
    sheet.arrow(after(last), before(norm))
    sheet.arrow(after(norm), before(head))
    sheet.arrow(after(head), (79, 34.4))


def _block(sheet: Canvas) -> None:
    """One block: the stream at the top, the layers that read it and write to it below."""
    sheet.axes.add_patch(patches.FancyBboxPatch((2, 0.8), 84, 20.7, boxstyle="round,pad=0,rounding_size=1",
                                                facecolor="none", edgecolor=PAGE, linewidth=0.9))
    stream = 14.6
    sheet.text(4, 19.6, "one block", align="left", bold=True, size=9)
    sheet.text(44, 17.4, "residual stream: one vector a token, to which each layer adds")
    sheet.arrow((0.3, stream), (88, stream))
    _line(sheet, (0.3, stream), (85, stream), width=3)
    for x, layer, does in ((7, "attention", "moves information between\ntokens, from earlier to later"),
                           (46, "MLP", "works on each\ntoken alone")):
        norm = sheet.box(x + 3, 4.3, 7, 6, "norm")
        work = sheet.box(x + 13, 4.3, 12, 6, layer, bold=True, size=10)
        _line(sheet, (x, stream), (x, 7.3))
        sheet.arrow((x, 7.3), before(norm))
        sheet.arrow(after(norm), before(work))
        _line(sheet, after(work), (x + 29, 7.3))
        sheet.arrow((x + 29, 7.3), (x + 29, stream - 1.6))
        _plus(sheet, x + 29, stream)
        sheet.text(below(work)[0], 2.5, does.replace("\n", " "), size=8)
