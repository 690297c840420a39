"""Chapter 04: the codec from sound to numbers and back, and the residual loop inside its quantizer."""

from mmcourse.show.diagrams import GRADIENT, Canvas, above, after, before, below


def codec(caption: str = "") -> None:
    """Sound -> log-mel -> encoder -> residual quantizer -> ids, and the way back, with shapes for 0.6 s of
    sound."""
    sheet = Canvas(90, 30)
    there, back = 19, 4
    sound = sheet.box(1, there, 12, 7, "sound\n8,000 a second", "sound")
    mel = sheet.box(23, there, 12, 7, "log-mel\n100 frames a s", "fixed")
    encoder = sheet.box(46, there, 12, 7, "encoder\n4 frames → 1", "learned")
    books = sheet.box(70, there, 19, 7, "residual quantizer\n4 books of 512 codes", "learned")
    sheet.arrow(after(sound), before(mel), "(1, 4800)")
    sheet.arrow(after(mel), before(encoder), "(1, 64, 60)")
    sheet.arrow(after(encoder), before(books), "(1, 64, 15)")
    ids = sheet.tokens(70, 11.8, (463, 386, 416, 488), width=4.75)
    sheet.arrow(below(books), above(ids))
    sheet.text(68.8, 13.5, "4 ids for each 40 ms\n(1, 15, 4)", align="right")
    codes = sheet.box(70, back - 1, 19, 6, "look the codes up,\nadd them", "fixed")
    sheet.arrow(below(ids), above(codes))
    decoder = sheet.box(46, back - 1, 12, 6, "decoder\n1 → 4 frames", "learned")
    again = sheet.box(23, back - 1, 12, 6, "log-mel again", "fixed")
    out = sheet.box(1, back - 1, 12, 6, "sound again", "sound")
    sheet.arrow(before(codes), after(decoder), "(1, 64, 15)")
    sheet.arrow(before(decoder), after(again), "(1, 64, 60)")
    sheet.arrow(before(again), after(out), "Griffin-Lim")
    sheet.arrow(above(again), below(mel), gradient=True)
    sheet.text(28, 14, "the loss\ncompares", align="right", colour=GRADIENT)
    sheet.arrow(above(decoder), below(encoder), gradient=True)
    sheet.text(51, 14, "gradient,\npast the rounding", align="right", colour=GRADIENT)
    sheet.text(45, 28.7, "from sound to numbers: encode", size=9)
    sheet.text(45, 0.9, "from numbers to sound: decode", size=9)
    sheet.show("Upper row, encoding: 8,000 samples a second become 100 log-mel frames of 64 bands, the encoder makes 25 vectors "
               "of them, the residual quantizer four ids for each. Lower row, decoding: codes looked up and added, decoder, "
               "log-mel again, Griffin-Lim, sound. The loss compares the two log-mel pictures; its gradient goes from decoder "
               "to encoder past the rounding.", caption)


def residual(caption: str = "") -> None:
    """The residual loop: each level takes the code nearest to what is left, and leaves less."""
    sheet = Canvas(90, 25)
    names, ids = ("z", "rest 1", "rest 2", "rest 3", "rest 4"), (463, 386, 416, 488)
    rests = [sheet.box(1 + 20 * i, 15, 8, 5, name, "sound" if i == 0 else "fixed") for i, name in enumerate(names)]
    for level, (rest, following, number) in enumerate(zip(rests, rests[1:], ids)):
        x = rest[0] + 10.6
        book = sheet.box(x - 5, 7.4, 10, 4.6, f"book {level}:\nnearest code", "learned", size=8)
        sheet.arrow((rest[0] + 4, 15), (x - 1.5, 12))
        sheet.arrow((x + 2.5, 12), (following[0] + 3, 15), "subtract", size=8, offset=(5.6, -0.9))
        sheet.arrow(after(rest), before(following))
        chosen = sheet.tokens(x - 2.75, 1.5, (number,), width=5.5)
        sheet.arrow(below(book), above(chosen))
    sheet.text(45, 23, "each level: nearest code to what is left, note its number, subtract it", size=9)
    sheet.show("A vector z. Level 0 finds the nearest code of its book, notes the number and subtracts the code; what is left, "
               "rest 1, goes to level 1, and so on for four levels: four numbers, and a rest that is not told.", caption)
