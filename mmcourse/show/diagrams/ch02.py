"""Chapter 02: how one token grew together."""
from mmcourse.bpe import BPETokenizer, to_byte_chars
from mmcourse.show.diagrams import Canvas


def merge_tree(tokenizer: BPETokenizer, word: str, caption: str = "") -> None:
    """A word as a tree: its bytes at the bottom, and above two tokens the one that they were merged into.

    `word` with its space before it, such as " umbrellas"; the number in a box says which merge it was.
    """
    row = list(to_byte_chars(word))
    places = [(5 + 7.4 * i, 0) for i in range(len(row))]                # (where, how many merges deep)
    nodes = [(token, x, 0, ()) for token, (x, _) in zip(row, places)]
    while possible := [tokenizer.merged[a + b] for a, b in zip(row, row[1:]) if a + b in tokenizer.merged]:
        new, i = min(possible), 0
        while i + 1 < len(row):
            if tokenizer.merged.get(row[i] + row[i + 1]) == new:
                two = places[i : i + 2]
                x, depth = (two[0][0] + two[1][0]) / 2, 1 + max(two[0][1], two[1][1])
                nodes.append((new, x, depth, two))
                row[i : i + 2], places[i : i + 2] = [new], [(x, depth)]
            i += 1
    sheet = Canvas(7.4 * (len(to_byte_chars(word)) - 1) + 14, 8.5 * (1 + max(depth for *_, depth, _ in nodes)))
    for token, x, depth, children in nodes:
        for child, low in children:
            sheet.axes.plot([child, x], [8.5 * low + (6.2 if low else 4.8), 8.5 * depth + 1.2], color="#7A7F85", linewidth=1.1)
        name = tokenizer.tokens[ord(token)].decode("utf-8", errors="replace").replace(" ", "␣")
        wide = max(5.2, 1.35 * len(name) + 2)
        text = f"{name}\n{ord(token) - 256:,}" if depth else name
        sheet.box(x - wide / 2, 8.5 * depth + 1.2, wide, 5 if depth else 3.6, text, "text" if depth else "fixed", size=8)
    sheet.show(f"The tree of {word!r}: its letters at the bottom, joined two at a time, the earliest merge first.", caption)
