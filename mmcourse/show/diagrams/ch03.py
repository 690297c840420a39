"""Chapter 03: the image tokenizer with the shapes of what flows through it, and the gradient's way round the quantizer."""

from mmcourse.show.diagrams import GRADIENT, Canvas, after, before, below


def vqvae(caption: str = "") -> None:
    """Picture, encoder, vectors, nearest code, ids, codes, decoder, picture; below, how the codes and the encoder learn."""
    sheet = Canvas(90, 35)
    y, h = 19, 8
    picture = sheet.box(0.5, y, 9, h, "picture\n64×64×3", "image")
    encoder = sheet.box(12, y, 9, h, "encoder", "learned", bold=True)
    vectors = sheet.box(23.5, y, 9.5, h, "vectors\n8×8×16", "fixed")
    nearest = sheet.box(36, y, 9, h, "nearest\nof 512", "fixed", bold=True)
    ids = sheet.box(47.5, y, 8.5, h, "64 ids\n8×8\n9 bits each", "token", size=8)
    codes = sheet.box(58.5, y, 8.5, h, "codes\n8×8×16", "fixed")
    decoder = sheet.box(69.5, y, 8.5, h, "decoder", "learned", bold=True)
    rebuilt = sheet.box(80.5, y, 9, h, "rebuilt\n64×64×3", "image")
    sheet.box(41, 7, 19, 5.5, "codebook: 512 × 16", "learned", bold=True)
    row = (picture, encoder, vectors, nearest, ids, codes, decoder, rebuilt)
    for left, right in zip(row, row[1:]):
        sheet.arrow(after(left), before(right))
    sheet.arrow((43.5, 12.5), (41.5, y), "compare", offset=(-4, 0))
    sheet.arrow((57.5, 12.5), (61, y), "look up", offset=(4.2, -0.4))
    sheet.text(51.7, 15.9, "what the transformer\nwill read and write", size=8)

    # the way back: from the picture's error through the decoder, over the quantizer, into the encoder
    sheet.arrow((85, y + h), (75, y + h), bend=0.45, gradient=True)
    sheet.arrow((72.5, y + h), (64, y + h), bend=0.45, gradient=True)
    sheet.arrow((62, y + h), (29, y + h), bend=0.32, gradient=True)
    sheet.arrow((27, y + h), (17, y + h), bend=0.45, gradient=True)
    sheet.text(45.5, 34, "the gradient of the picture's error goes straight through: copied from the codes to the vectors",
               size=8, colour=GRADIENT)

    # what else moves
    sheet.arrow((below(vectors)[0], y), (41, 9), bend=0.25, dashed=True)
    sheet.text(22.5, 9, "each code follows the mean\nof the vectors that chose it\n(EMA, no gradient)", size=8)
    sheet.text(77, 9.8, "commitment: a second loss pulls\neach vector towards its code", size=8, colour=GRADIENT)
    sheet.box(1, 1.2, 6, 2.6, "learned", "learned", size=8)
    sheet.box(8.5, 1.2, 8, 2.6, "no weights", "fixed", size=8)
    sheet.text(18.5, 2.5, "solid: forwards     dashed red: the gradient's way back     dashed grey: no gradient", size=8,
               align="left")
    sheet.show("A picture of 64x64x3 numbers goes through the encoder and becomes 8x8 vectors of 16 numbers; each is replaced by "
               "the nearest of 512 codes, whose number is the id; the ids look up their codes, and the decoder paints the "
               "picture from them. The gradient goes back through the decoder and is copied from the codes to the vectors, round "
               "the quantizer, into the encoder. The codes follow the mean of the vectors that chose them.", caption)
