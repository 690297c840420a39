"""Chapter 00: the whole pipe."""

from mmcourse.show.diagrams import Canvas, after, before

# the first numbers of “a cat on the left”, of its picture on blue, and of the word “cat” said by a new voice, as the
# transformer gets them: a test asks the shipped tokenizers
NUMBERS = {"text": (278, 597, 274), "image": (1418, 1078, 1078), "sound": (1791, 2339, 1983)}


def pipe(caption: str = "") -> None:
    """Text, picture and sound become tokens, one transformer goes on with them, and each way back has its decoder."""
    sheet = Canvas(88, 31)
    rows = (("text", 22, "a cat on\nthe left", "BPE", "BPE", "text"),
            ("image", 13, "picture\n64 × 64", "VQ-VAE\nencoder", "VQ-VAE\ndecoder", "picture"),
            ("sound", 4, "sound\n8,000 Hz", "codec\nencoder", "codec\ndecoder", "sound"))
    middle = sheet.box(34.5, 3, 12, 26, "ONE\ncausal\ntransformer\n\npredicts\nthe next\nnumber", "learned", size=10, bold=True)
    for kind, y, thing, encoder, decoder, result in rows:
        source = sheet.box(0.5, y, 9, 6, thing, kind)
        into = sheet.box(11.5, y, 9, 6, encoder, "learned")
        sheet.arrow(after(source), before(into))
        numbers = "\n".join((", ".join(map(str, NUMBERS[kind][:2])) + ",", f"{NUMBERS[kind][2]}, …"))
        sheet.arrow(after(into), (middle[0], y + 3), numbers, offset=(0, 2))
        back = sheet.box(54.5, y, 9, 6, decoder, "learned")
        sheet.arrow((middle[0] + middle[2], y + 3), before(back), "ids", offset=(0, 1.2))
        out = sheet.box(66, y, 9, 6, result, kind)
        sheet.arrow(after(back), before(out))
    painter = sheet.box(77.5, 12, 10, 8, "diffusion\ndecoder\nadds detail", "learned", size=8)
    sheet.arrow((75, 16), before(painter))
    sheet.text(16.5, 30, "things → whole numbers", size=8)
    sheet.text(62, 30, "whole numbers → things", size=8)
    sheet.show("Text, picture and sound each go through an encoder of their own into whole numbers; one causal transformer "
               "predicts the next number; the numbers go back through the decoder of their kind; pictures go on "
               "through a diffusion decoder that adds detail.", caption)
