"""Chapter 07: where the diffusion decoder stands, and the U-Net with the three things that it is told."""

from mmcourse.show.diagrams import PAGE, Canvas, above, after, before, below


def pipe(caption: str = "") -> None:
    """From the transformer's numbers to a picture: the plain decoder, then the flow. Sound has its plain decoder alone."""
    sheet = Canvas(88, 34)
    sheet.box(0.5, 12, 11, 10, "transformer\n(05, 06)", "learned", bold=True)
    ids = sheet.tokens(17, 20.5, (75, 132, 132, "…"), width=4)
    sheet.text(25, 26, "64 picture tokens")
    plain = sheet.box(37, 20, 10, 7, "VQ-VAE\ndecoder\n(03)", "learned", size=8)
    picture = sheet.box(51, 20, 10, 7, "plain\npicture", "image")
    sheet.box(66, 16, 11, 11, "U-Net,\nthis chapter:\none call\na step", "learned", bold=True, size=8)
    result = sheet.box(80, 19.5, 7.5, 7, "picture", "image", size=8)
    noise = sheet.box(51, 29, 10, 4.4, "noise", "fixed", size=8)
    codes = sheet.box(51, 12, 10, 6, "64 code\nvectors", "token", size=8)
    sheet.arrow((11.5, 19), before(ids))
    sheet.arrow(after(ids), before(plain))
    sheet.arrow(after(plain), before(picture))
    sheet.arrow(after(picture), (66, 23.5))
    sheet.arrow(below(ids), before(codes), "look up in the codebook", bend=0.16, offset=(1, -5.2))
    sheet.arrow(after(codes), (66, 18.5))
    sheet.arrow(after(noise), (70, 27))
    sheet.arrow((77, 23), before(result))
    sheet.arrow((76, 27), (72.5, 27), bend=1.5)
    sheet.text(77.5, 30, "again, n times", align="left")
    words = sheet.tokens(17, 3, (402, 17, 99, "…"), width=4)
    sheet.text(25, 8.5, "sound tokens")
    codec = sheet.box(37, 1.5, 10, 6.4, "codec\ndecoder\n(04)", "learned", size=8)
    sound = sheet.box(51, 1.5, 10, 6.4, "sound", "sound")
    sheet.arrow((11.5, 14), before(words))
    sheet.arrow(after(words), before(codec))
    sheet.arrow(after(codec), before(sound))
    sheet.text(63, 4.7, "(section 11 tries a flow\nhere, too: nothing gained)", align="left")
    sheet.show("The transformer writes picture tokens. The VQ-VAE's decoder makes the plain picture of them, and their code "
               "vectors are looked up in the codebook. The U-Net starts from noise and is told both; called again and "
               "again it gives the finished picture. Sound tokens go through the codec's decoder alone.", caption)


def unet(caption: str = "") -> None:
    """The U-Net: fine grid above, coarse grid below, and its three conditions, time, plain picture and codes."""
    sheet = Canvas(90, 39)
    fine, coarse = 26.5, 11
    noisy = sheet.box(0.5, fine + 5, 11.5, 5.4, "noisy error\n3 × 64 × 64", "fixed", size=8)
    plain = sheet.box(0.5, fine - 3, 11.5, 5.4, "plain picture\n3 × 64 × 64", "image", size=8)
    codes = sheet.box(0.5, coarse, 11.5, 5.4, "code vectors\n16 × 8 × 8", "token", size=8)
    time = sheet.box(0.5, 1, 11.5, 4.4, "time t", "fixed", size=8)
    enter = sheet.box(17.5, fine, 9.5, 6, "4×4 pixels\nare one place\nconv 96 → 64", "learned", size=7.5)
    down = sheet.box(31, fine, 9, 6, "block × 2\n64 wide", "learned", size=8, bold=True)
    middle = sheet.box(42.5, coarse, 11, 6, "block × 3\n128 wide", "learned", size=8, bold=True)
    join = sheet.box(56, fine, 9, 6, "join, conv\n128 → 64", "learned", size=8)
    up = sheet.box(68, fine, 9, 6, "block × 2\n64 wide", "learned", size=8, bold=True)
    out = sheet.box(79.5, fine, 10, 6, "conv, and\nback to pixels", "learned", size=8)
    clean = sheet.box(78.5, 14, 11, 5.4, "clean error\n3 × 64 × 64", "image", size=8)
    features = sheet.box(17.5, 1, 17, 4.4, "sines, cosines, 2 layers", "learned", size=8)
    mix = sheet.box(31, coarse, 5, 6, "+", "fixed", size=11)
    sheet.arrow(after(noisy), (17.5, fine + 4.6))
    sheet.arrow(after(plain), (17.5, fine + 1.6))
    sheet.arrow(after(enter), before(down))
    sheet.arrow((33.5, fine), (33.5, coarse + 6), "down", offset=(-2.6, 1))
    sheet.arrow(after(codes), before(mix), "1×1 conv")
    sheet.arrow(after(mix), before(middle))
    sheet.arrow((53.5, coarse + 4), (59, fine), "up", offset=(2.6, -1))
    sheet.arrow(after(down), before(join), "skip: the fine grid as it was")
    sheet.arrow(after(join), before(up))
    sheet.arrow(after(up), before(out))
    sheet.arrow((84, fine), above(clean))
    sheet.arrow(after(time), before(features))
    sheet.axes.plot([34.5, 72.5], [3.2, 3.2], color=PAGE, linewidth=1.3, linestyle="--")
    sheet.axes.plot([38, 38], [3.2, 23], color=PAGE, linewidth=1.3, linestyle="--")
    sheet.arrow((38, 22), (38, fine), dashed=True)
    sheet.arrow((48, 3.2), below(middle), dashed=True)
    sheet.arrow((72.5, 3.2), below(up), dashed=True)
    sheet.text(55, 1.2, "scale and shift of every block")
    sheet.text(54, fine + 8, "fine grid, 16 × 16")
    sheet.text(46.5, coarse + 8, "coarse grid, 8 × 8:\none place is one token")
    sheet.show("The noisy error and the plain picture go side by side into a first convolution on a grid of 16 by 16; two "
               "residual blocks; downsampled to 8 by 8, where the code vectors of the tokens are added; three blocks; "
               "upsampled and joined with what the fine grid held (the skip); two blocks; a last convolution back to "
               "pixels gives the clean error. The time scales and shifts all seven blocks.", caption)
