"""Chapter 00: the whole pipe."""

from mmcourse.show.diagrams import Canvas, after, before


def pipe(caption: str = "") -> None:
    """Text, picture and sound become tokens, one transformer goes on with them, and each way back has its decoder."""
    sheet = Canvas(88, 31)
    rows = (("text", 22, "a cat on\nthe left", "BPE", "[1051, 304, 17]", "BPE", "a cat on\nthe left"),
            ("image", 13, "picture\n64 × 64", "VQ-VAE\nencoder", "[75, 132, 132, …]", "VQ-VAE\ndecoder", "plain\npicture"),
            ("sound", 4, "sound\n8,000 Hz", "codec\nencoder", "[402, 17, 99, …]", "codec\ndecoder", "sound"))
    middle = sheet.box(33.5, 3, 12, 26, "ONE\ncausal\ntransformer\n\npredicts\nthe next\nnumber", "learnt", size=10, bold=True)
    for kind, y, thing, encoder, ids, decoder, result in rows:
        source = sheet.box(0.5, y, 9, 6, thing, kind)
        into = sheet.box(12, y, 9, 6, encoder, "learnt")
        sheet.arrow(after(source), before(into))
        sheet.arrow(after(into), (middle[0], y + 3), ids, size=7, offset=(0, 1.3))
        back = sheet.box(54, y, 9, 6, decoder, "learnt")
        sheet.arrow((middle[0] + middle[2], y + 3), before(back), "numbers", size=7, offset=(0, 1.3))
        out = sheet.box(66, y, 9, 6, result, kind)
        sheet.arrow(after(back), before(out))
    painter = sheet.box(77.5, 12, 10, 8, "diffusion\ndecoder\nadds detail", "learnt", size=8)
    sheet.arrow((75, 16), before(painter))
    sheet.text(16.5, 30, "things → whole numbers", size=8)
    sheet.text(62, 30, "whole numbers → things", size=8)
    sheet.show("Text, picture and sound each go through an encoder of their own into whole numbers; one causal transformer "
               "predicts the next number; the numbers go back through the decoder of their kind; pictures go on "
               "through a diffusion decoder that adds detail.", caption)
