"""Chapter 03's figures and tables: patches, refusals, signs read, photographs, and what its studies measured.

Tables show what `data/results/ch03_*.json` holds: the chapter loads it (`mmcourse.files.results`) and hands it in.
Nothing here trains anything.
"""
from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from PIL import Image

from mmcourse import show
from mmcourse.judges import PictureReader
from mmcourse.judges.metrics import pooled_psnr, t_interval
from mmcourse.show.codebooks import code_distances
from mmcourse.vqvae import VQVAE
from mmcourse.world import photos
from mmcourse.world.scene import Scene

# ---------------------------------------------------------------- pictures as rows of patches

def to_patches(pictures: torch.Tensor, patch: int = 8) -> torch.Tensor:
    """Each square of a picture as one row of numbers: (B, 3, H, W) -> (B * H/patch * W/patch, 3 * patch *
    patch)."""
    # (B, 192, 64) -> (B * 64, 192)
    return F.unfold(pictures, patch, stride=patch).transpose(1, 2).flatten(0, 1)


def from_patches(patches: torch.Tensor, size: int = 64, patch: int = 8) -> torch.Tensor:
    """The way back from `to_patches`, for square pictures: (B * n, 3 * patch * patch) -> (B, 3, size,
    size)."""
    # (B * 64, 192) -> (B, 192, 64)
    columns = patches.unflatten(0, (-1, (size // patch) ** 2)).transpose(1, 2)
    return F.fold(columns, size, patch, stride=patch)


def refusals(call: Callable, inputs: Mapping[str, object]) -> list[dict]:
    """Rows for a table: what `call` says to each input that it ought to refuse. AssertionError if it takes
    one."""
    rows = []
    for name, bad in inputs.items():
        try:
            call(bad)
        except (ValueError, TypeError) as error:
            rows.append({"handed in": name, "the answer": f"{type(error).__name__}: {error}"})
        else:
            raise AssertionError(f"{name} was accepted")
    return rows


# ---------------------------------------------------------------- can the signs be read?

def signs_read(pictures: torch.Tensor, scenes: Sequence[Scene]) -> tuple[float, list[tuple[str, str]]]:
    """Of the scenes that have a sign: the share whose word the template reader finds, and (true, read) for
    each."""
    found = PictureReader().read(pictures)
    pairs = [(a.sign, b.sign if b else "") for a, b in zip(scenes, found, strict=True) if a.sign]
    if not pairs:
        raise ValueError("none of these scenes has a sign")
    return float(np.mean([a == b for a, b in pairs])), pairs


def confusions(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
    """Which letter was read as which other one, and how often, most often first: [("O→D", 3), ...]."""
    letters = ((x, y) for a, b in pairs if len(a) == len(b) for x, y in zip(a, b))
    return Counter(f"{x}→{y}" for x, y in letters if x != y).most_common()


# ---------------------------------------------------------------- photographs

def code_distance_map(tokenizer: VQVAE, photo: torch.Tensor, again: torch.Tensor, home: torch.Tensor,
                      caption: str = "") -> None:
    """A photograph (3, H, W), what its tokens hold (`again`), one colour a patch, and how far each patch is
    from its code.

    The title of the last has the same distance for pictures of the tokenizer's own world, `home` (B, 3, h,
    w).
    """
    H, W = (side // 8 * 8 for side in photo.shape[1:])
    inside = photo[:, :H, :W]
    far, near = code_distances(tokenizer, inside[None])[0], code_distances(tokenizer, home)
    flat = F.interpolate(F.avg_pool2d(inside[None], 8), scale_factor=8)[0]
    show.pictures([photo, again, flat, far / far.max()],
                  ["before", f"from its tokens\n{pooled_psnr(again, photo):.1f} dB",
                   f"one colour a patch\n{pooled_psnr(flat, inside):.1f} dB",
                   f"distance to the code\nmedian {far.median():.2f}, at home {near.median():.2f}"], size=1.8,
                  caption=caption)


def compare(originals: Mapping[str, torch.Tensor], ways: Mapping[str, Callable], caption: str = "") -> None:
    """Each picture (3, H, W) as it is, and as each of `ways` gives it back, with the PSNR: one row a
    picture."""
    shown, titles = [], []
    for name, picture in originals.items():
        back = {way: fn(picture) for way, fn in ways.items()}
        shown += [picture, *back.values()]
        titles += [name, *(f"{way}\n{pooled_psnr(p, picture):.1f} dB" for way, p in back.items())]
    show.pictures(shown, titles, columns=1 + len(ways), size=1.7, caption=caption)


def codec_wall(image: torch.Tensor, decoded: torch.Tensor, caption: str = "") -> None:
    """One picture (3, H, W) from our tokens and as JPEG, WebP and AVIF at each budget: a row a codec; blank:
    nothing fits."""
    shown, titles = [], []
    for kind in filter(photos.can_write, photos.KINDS):
        found = photos.candidates(image, kind)
        fits = [photos.best(found, budget) for budget in photos.BUDGETS]
        shown += [image, decoded, *(f["picture"] if f else torch.ones_like(image) for f in fits)]
        titles += ["true", "tokens, 72", *(f"{kind} ≤ {budget}" for budget in photos.BUDGETS)]
    show.pictures(shown, titles, columns=2 + len(photos.BUDGETS), size=1.15, caption=caption)


# ---------------------------------------------------------------- many small pictures

def unstrip(text: str) -> np.ndarray:
    """A strip of pictures from `data/results/ch03_*.json` (a picture file in base64) -> (H, W, 3) uint8."""
    return np.array(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def wall(strips: Mapping[str, str | np.ndarray], caption: str = "", columns: int = 2,
         colours: int | None = 128) -> None:
    """{title: strip of pictures} in `columns`, each title above its strip; `colours` as in
    `show.pictures`."""
    if not strips:
        raise ValueError("no strips to show: the dict is empty")
    rows = -(-len(strips) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3.7 * columns, 1.13 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, row) in zip(axes.flat, strips.items()):
        axis.imshow(unstrip(row) if isinstance(row, str) else row, interpolation="nearest")
        axis.set_title(title, fontsize=8.5, pad=3)
    show.figure(fig, caption, colours=colours)


# ---------------------------------------------------------------- measured tables

def _percent(x) -> str:
    return "–" if x is None else f"{x:.0%}"


def _decibels(run: dict) -> str:
    return f"{run['psnr_db']:.1f}" if "psnr_db" in run else "–"


def seeds(sweep: dict, name: str) -> list[dict]:
    """A configuration of `ch03_sweep` as it was measured with each seed: the whole run first."""
    return [sweep["runs"][name], *sweep.get("more seeds", {}).get(name, {}).values()]


def mean(runs: Sequence[dict], key: str) -> float:
    """The mean of one figure over the seeds."""
    return float(np.mean([r[key] for r in runs]))


def _span(runs: Sequence[dict], key: str, scale: float = 1, digits: int = 1, unit: str = "") -> str:
    """Mean over the seeds and, in brackets, the least and the greatest: "20.6 (20.4–20.8)"; one seed has no
    brackets."""
    values = [r[key] * scale for r in runs if key in r]
    if not values:
        return "–"
    middle, low, high = (f"{v:,.{digits}f}" for v in (np.mean(values), min(values), max(values)))
    return f"{middle}{unit}" + (f" ({low}–{high})" if len(values) > 1 else "")


def cures(sweep: dict) -> dict[str, list[dict]]:
    """The runs of `ch03_sweep` in which one cure at a time was tried, worst first, then two whole quantizers:
    {cure: the run with each seed}."""
    found = {n.removeprefix("cure: "): seeds(sweep, n) for n, r in sweep["runs"].items()
             if r["table"] == "cures"}
    rest = sorted((n for n in found if n != "nothing"), key=lambda n: mean(found[n], "psnr_db"))
    return {n: found[n] for n in ("nothing", *rest)} | {"all of section 6": seeds(sweep, "VQ 512 patch 8"),
                                                       "FSQ 8, 8, 8": seeds(sweep, "FSQ 512 patch 8")}


def cure_rows(sweep: dict) -> list[dict]:
    """Rows for a table: what each cure does to a codebook of 512; the mean of the seeds, and their range."""
    return [{"cure": name, "codes alive (of 512)": _span(runs, "codes_used", digits=0),
             "perplexity": _span(runs, "perplexity", digits=0), "PSNR, dB": _span(runs, "psnr_db"),
             "signs read (OCR)": _span(runs, "signs_ocr", 100, 0, " %"),
             "objects": _span(runs, "objects", 100, 0, " %"),
             "seeds": len(runs)} for name, runs in cures(sweep).items()]


def cure_verdict(sweep: dict) -> str:
    """Which single cure keeps most codes alive, which paints best, and what they are worth; means of the
    seeds."""
    found = cures(sweep)
    single = [n for n in found if n not in ("nothing", "copy forgotten", "all of section 6", "FSQ 8, 8, 8")]
    alive, sharp = (max(single, key=lambda n: mean(found[n], key)) for key in ("codes_used", "psnr_db"))

    def says(name):
        return f"{mean(found[name], 'codes_used'):.0f} codes, {mean(found[name], 'psnr_db'):.1f} dB"

    text = (f"Alone, '{alive}' keeps most codes alive ({says(alive)}), and '{sharp}' gives the best picture "
            f"({says(sharp)}); without any cure: {says('nothing')}; all of section 6: "
            f"{says('all of section 6')}.")
    return text + (f" The copy forgotten: {says('copy forgotten')}." if "copy forgotten" in found else "")


def beside_rows(sweep: dict, names: Mapping[str, str]) -> list[dict]:
    """Rows for a table: some configurations of `ch03_sweep`, {its name in the table: its name in the file}."""
    rows = [(shown, seeds(sweep, name) if name in sweep["runs"] else []) for shown, name in names.items()]
    return [{"": shown, "PSNR, dB": _span(runs, "psnr_db"), "signs read (OCR)": _span(runs, "signs_ocr", 100, 0, " %"),
             "seeds": len(runs)} for shown, runs in rows]


def difference(sweep: dict, a: str, b: str, key: str = "psnr_db") -> tuple[float, float, int] | None:
    """By how much configuration `a` exceeds `b`: mean over the seeds that both have, half the width of its 95 % interval
    (Student's t on the differences, seed by seed; infinite for fewer than three seeds), and the number of seeds. None
    if one of them was not measured."""
    if not {a, b} <= set(sweep["runs"]):
        return None
    return _interval([x[key] - y[key] for x, y in zip(seeds(sweep, a), seeds(sweep, b))])


def _signed(found: tuple[float, float, int] | None, unit: str = "") -> str:
    if found is None:
        return "–"
    middle, half, n = found
    some = f" ± {half:.1f}{unit}" if np.isfinite(half) else f"{unit} ({'one seed' if n == 1 else f'{n} seeds'})"
    return f"{middle:+.1f}{some}"


def optimizer_says(sweep: dict) -> str:
    """What Muon is worth in place of AdamW, at 512 codes of 8x8 patches."""
    found = ((kind, difference(sweep, f"Muon: {kind} 512 patch 8", f"{kind} 512 patch 8")) for kind in ("VQ", "FSQ"))
    return "Muon in place of AdamW: " + ", ".join(f"{kind} {_signed(gain, ' dB')}" for kind, gain in found) + "."


def sweep_verdict(sweep: dict) -> list[dict]:
    """Rows for a table: what each change of the sweep is worth in dB, with intervals; "–" if a row is missing."""
    def row(change, after, before):
        return {"change": change, **{kind: _signed(difference(sweep, f"{kind} {after}", f"{kind} {before}"))
                                     for kind in ("VQ", "FSQ")}}

    rows = [row(f"{few:,} -> {many:,} codes, {patch}x{patch} patches", f"{many} patch {patch}", f"{few} patch {patch}")
            for patch in (8, 16) for few, many in ((512, 8192), (8192, 65536))]
    rows.append(row("16x16 -> 8x8 patches, 512 codes", "512 patch 8", "512 patch 16"))
    return rows + [{"change": f"VQ -> FSQ, {n:,} codes, {patch}x{patch} patches", "VQ": "",
                    "FSQ": _signed(difference(sweep, f"FSQ {n} patch {patch}", f"VQ {n} patch {patch}"))}
                   for patch in (8, 16) for n in (512, 8192, 65536)]


def _judged(found: tuple[float, float, int] | None, positive: str, negative: str) -> str:
    """What an interval decides: the sentence for above 0, that for below 0, or that it is undecided."""
    if found is None or abs(found[0]) <= found[1]:
        return "undecided"
    return positive if found[0] > 0 else negative


def sweep_says(sweep: dict) -> str:
    """The verdict on both halves of the sweep's hypothesis: codes against patches, FSQ at 65,536 codes; and of how
    many rows it has three seeds."""
    codes, patches = (difference(sweep, a, b) for a, b in (("VQ 65536 patch 8", "VQ 512 patch 8"),
                                                           ("VQ 512 patch 8", "VQ 512 patch 16")))
    runs = [seeds(sweep, n) for n in ("VQ 65536 patch 8", "VQ 512 patch 8", "VQ 512 patch 16")]
    gaps = [a["psnr_db"] + c["psnr_db"] - 2 * b["psnr_db"] for a, b, c in zip(*runs)]
    lead = _interval(gaps)                                             # what codes gain, minus what patches gain
    fsq = difference(sweep, "FSQ 65536 patch 8", "VQ 65536 patch 8")
    counts = [len(seeds(sweep, n)) for n, r in sweep["runs"].items() if r["table"] == "sweep"]
    return (f"More codes help as much as smaller patches: {_judged(lead, 'holds', 'fails')}. 128 times as many codes: "
            f"{_signed(codes, ' dB')}; four times as many tokens: {_signed(patches, ' dB')}.\n"
            f"FSQ is ahead at 65,536 codes of 8x8 patches: {_judged(fsq, 'holds', 'fails')}. {_signed(fsq, ' dB')}.\n"
            f"Three seeds: {sum(n > 2 for n in counts)} of {len(counts)} rows. Fewer than three decide nothing here.")


def null_span(sweep: dict) -> str:
    """How far sets of true pictures lie from the judges' true pictures: the middle 95 % of their Frechet distances."""
    found = sweep["reference"]["other true pictures"]["fd"]
    low, high = np.quantile(found, [0.025, 0.975])
    return f"{low:.2f} to {high:.2f} ({len(found)} other sets of {sweep['reference']['other true pictures']['judged']})"


def sweep_runs(sweep: dict) -> list[dict]:
    """The runs of the sweep over codes, quantizers and patches that have been made: few tokens first, then
    few codes."""
    runs = (r for r in sweep["runs"].values() if r["table"] == "sweep")
    return sorted(runs, key=lambda r: (r["tokens"], r["codes"], r["kind"]))


def sweep_rows(sweep: dict) -> list[dict]:
    """Rows for a table: every tokenizer of the sweep, the shipped one, and the true pictures, which are the
    ceiling."""
    names = {id(r): n for n, r in sweep["runs"].items()}
    rows = [({"tokens": r["tokens"], "codes": f"{r['codes']:,}", "": r["kind"]}, seeds(sweep, names[id(r)]))
            for r in sweep_runs(sweep)]
    rows += [({"tokens": name, "codes": "", "": ""}, [sweep["reference"][key]])
             for name, key in (("shipped", "shipped"), ("true", "true pictures"))]
    return [{**head, "PSNR, dB": _span(r, "psnr_db"), "FD": _span(r, "fd", digits=2),
             "objects": _span(r, "objects", 100, 0, " %"), "signs (OCR)": _span(r, "signs_ocr", 100, 0, " %"),
             "codes used": _span(r, "codes_used", digits=0),
             "bits, nominal": _span(r[:1], "nominal_bits", digits=0),
             "bits, measured": _span(r[:1], "measured_bits", digits=0),
             "CPU min": _span(r[:1], "cpu_minutes"),
             "seeds": len(r) if head["codes"] else ""}
            for head, r in rows]


def sweep_plot(sweep: dict, caption: str = "") -> None:
    """PSNR and signs read against the nominal bits of a picture, means of the seeds; each line goes from few codes to
    many."""
    names, runs = {id(r): n for n, r in sweep["runs"].items()}, sweep_runs(sweep)
    fig, axes = plt.subplots(1, 2, figsize=(9.0, 3.6))
    for kind, marker, colour in (("VQ", "o", show.COLOURS[0]), ("FSQ", "s", show.COLOURS[1])):
        for patch, line in ((8, "-"), (16, ":")):
            chosen = [r for r in runs if (r["kind"], r["patch"]) == (kind, patch)]
            for axis, key, scale in ((axes[0], "psnr_db", 1), (axes[1], "signs_ocr", 100)):
                found = [np.mean([one.get(key, np.nan) for one in seeds(sweep, names[id(r)])]) for r in chosen]
                axis.plot([r["nominal_bits"] for r in chosen], np.multiply(scale, found), line, marker=marker, color=colour,
                          label=f"{kind}, {patch}x{patch} patches")
    for axis, name in zip(axes, ("PSNR (dB)", "signs read by OCR (%)")):
        axis.set(xscale="log", xlabel="nominal bits a picture", ylabel=name, xticks=[150, 300, 600, 1000])
        axis.set_xticklabels(["150", "300", "600", "1,000"])
        axis.minorticks_off()
    axes[1].legend(fontsize=8.5)
    show.figure(fig, caption)


def sweep_wall(sweep: dict, caption: str = "") -> None:
    """Four pictures through every tokenizer of the sweep: 16 tokens a picture on the left, 64 on the
    right."""
    strips = {name: sweep["reference"][key]["pictures"]
              for name, key in (("true pictures", "true pictures"),
                                ("the shipped tokenizer, 64 tokens", "shipped"))}
    blank = np.ones((64, 256, 3))
    for codes in (512, 8192, 65536):
        for kind in ("VQ", "FSQ"):
            pair = [sweep["runs"].get(f"{kind} {codes} patch {patch}") for patch in (16, 8)]
            for tokens, run in zip((16, 64), pair if any(pair) else ()):
                name = f"{kind}, {codes:,} codes, {tokens} tokens"
                strips[name if run else f"{name}: not run"] = run["pictures"] if run else blank
    wall(strips, caption)


def codec_rows(measured: dict) -> list[dict]:
    """Rows for a table: true pictures, our tokens, then JPEG, WebP and AVIF at each budget (`ch03_jpeg`)."""
    true, tokens = measured["true pictures"], measured["tokens"]
    rows = [{"": "true pictures", "bytes": "–", "PSNR, dB": "–", "run": true, "whole": "–", "strict": "–"},
            {"": "our tokens", "bytes": tokens["bytes"], "PSNR, dB": _decibels(tokens), "run": tokens,
             "whole": f"{tokens['bytes']} bytes", "strict": _decibels(tokens)}]
    cells = {(c["kind"], c["count"], c["budget"]): c for c in measured["codecs"]}
    for (kind, count, budget), c in cells.items():
        if count == "payload" and "psnr_db" in c:
            rows.append({"": kind, "bytes": f"≤ {budget}", "PSNR, dB": _decibels(c), "run": c,
                         "whole": f"{c['whole_file']:.0f} bytes",
                         "strict": _decibels(cells[kind, "file", budget]).replace("–", "does not fit")})
    return [{"": r[""], "bytes": r["bytes"], "PSNR, dB": r["PSNR, dB"],
             "letters": _percent(r["run"]["letters"]),
             "signs (OCR)": _percent(r["run"].get("signs_ocr")), "the whole file": r["whole"],
             "PSNR if headers count": r["strict"]} for r in rows]


def codec_verdict(measured: dict) -> str:
    """At the tokens' bytes, who is ahead; and how many bytes of picture data each of the others needs to pass them."""
    tokens = measured["tokens"]
    found = [c for c in measured["codecs"] if c["count"] == "payload" and "psnr_db" in c]
    same = [c for c in found if c["budget"] == tokens["bytes"]]
    best = max(same, key=lambda c: c["psnr_db"], default=None)
    text = f"{tokens['bytes']} bytes as tokens: {tokens['psnr_db']:.1f} dB"
    text += f"; the best of the others in as many: {best['kind']}, {best['psnr_db']:.1f} dB." if best else "."
    kinds = dict.fromkeys(c["kind"] for c in found)
    passed = {k: min((c["budget"] for c in found if c["kind"] == k and c["psnr_db"] >= tokens["psnr_db"]), default=None)
              for k in kinds}
    most = max(c["budget"] for c in found)
    if not any(passed.values()):
        return f"{text} None of them reaches the tokens even in {most} bytes."
    return f"{text} To reach the tokens " + ", ".join(
        f"{k} needs {n} bytes" if n else f"{k} needs more than {most}" for k, n in passed.items()) + "."


LIMITS = {                               # a row of the results -> its name in the table
    "in place": "in place (control)",
    "moved": "moved, as shipped",
    "better ids": "better ids of the same 512",
    "more codes": "{codes:,} codes, same networks",
    "no codes": "the encoder's vectors, not quantized",
    "free vectors": "the best vectors for this decoder",
    "true pictures": "true pictures (ceiling)",
}


def limit_rows(limits: dict) -> list[dict]:
    """Rows for a table: moved pictures with one part of the tokenizer replaced at a time (`ch03_limits`)."""
    return [{"tokens": name.format(**limits["plan"]),
             "PSNR, dB": "–" if key == "true pictures" else _decibels(r),
             "objects": _percent(r["objects"]), "signs (OCR)": _percent(r.get("signs_ocr"))}
            for key, name in LIMITS.items() if (r := limits["rows"].get(key))]


def limit_verdict(limits: dict, floor: float = 25.0) -> str:
    """Two sentences: how many dB each part of the tokenizer costs on moved pictures, and which is the first
    to reach `floor`."""
    db = {name: r["psnr_db"] for name, r in limits["rows"].items()}
    text = (f"Better ids gain {db['better ids'] - db['moved']:.1f} dB, {limits['plan']['codes']:,} codes "
            f"{db['more codes'] - db['moved']:.1f}, no codes at all {db['no codes'] - db['moved']:.1f}, and "
            f"the best vectors that there are for this decoder {db['free vectors'] - db['moved']:.1f}.")
    changed = ("better ids", "more codes", "no codes", "free vectors")
    reach = [LIMITS[n].format(**limits["plan"]) for n in changed if db[n] >= floor]
    return f"{text} The {floor:.0f} dB hoped for are reached by: {'; '.join(reach) or 'none of them'}."


def moved_rows(moved: dict) -> list[dict]:
    """Rows for a table: tokenizers that grew up on moved pictures (`ch03_moved`), by what they reach."""
    rows = sorted(moved["rows"].items(), key=lambda row: row[1]["psnr_db"])
    return [{"trained on moved pictures": name.replace("8192", "8,192"), "PSNR, dB": _decibels(r),
             "objects": _percent(r["objects"]), "signs (OCR)": _percent(r.get("signs_ocr")),
             "codes used": "–" if name.startswith("no codes") else r["codes_used"],
             "CPU minutes": r["cpu_minutes"]} for name, r in rows]


def moved_verdict(moved: dict, floor: float = 25.0) -> str:
    """Two sentences: the best that codes reach on moved pictures, its cost, and no codes beside it; who
    reaches `floor` dB."""
    rows = {name.replace("8192", "8,192"): r for name, r in moved["rows"].items()}
    name = max((n for n in rows if not n.startswith("no codes")), key=lambda n: rows[n]["psnr_db"])
    with_codes = rows[name]
    without = max((r for n, r in rows.items() if n.startswith("no codes")), key=lambda r: r["psnr_db"])
    reach = [n for n, r in rows.items() if r["psnr_db"] >= floor]
    return (f"With codes the best is {with_codes['psnr_db']:.1f} dB and {with_codes['signs_ocr']:.0%} of the "
            f"signs ({name}, {with_codes['cpu_minutes']:.0f} CPU minutes); without codes "
            f"{without['psnr_db']:.1f} dB and {without['signs_ocr']:.0%}. The {floor:.0f} dB hoped for are "
            f"reached by: {'; '.join(reach) or 'none of them'}.")


def peer_rows(bench: dict) -> list[dict]:
    """Rows for a table: our quantizers beside the library's (`tests/benchmarks/vq.py`)."""
    rows = [{"": name, "ours": f"{v['ours, ms']:.1f} ms", "the library's": f"{v['peer, ms']:.1f} ms",
             "ratio": f"{v['peer / ours']:.1f}"} for name, v in bench["speed"].items()]
    quality = bench["quality"]
    ours, peer = quality["ours"], max((v for n, v in quality.items() if n != "ours"),
                                      key=lambda v: v["psnr_db"])
    rows += [{"": f"PSNR after {bench['steps']} steps", "ours": f"{ours['psnr_db']:.1f} dB",
              "the library's": f"{peer['psnr_db']:.1f} dB", "ratio": ""},
             {"": "codes used, of 512", "ours": ours["codes_used"], "the library's": peer["codes_used"],
              "ratio": ""}]
    return rows


def gan_ways(measured: dict) -> dict[str, dict]:
    """The decoders of `ch03_gan`: first the one before, then the control, each loss alone, both."""
    names = sorted(measured["ways"], key=lambda n: (n.startswith("+"), "both" in n, n))
    return {"before": measured["before"]} | {n: measured["ways"][n] for n in names}


def gan_seeds(measured: dict, name: str) -> list[dict]:
    """A decoder of `ch03_gan` as it was measured with each seed."""
    return [gan_ways(measured)[name], *measured.get("more seeds", {}).get(name, {}).values()]


def gan_rows(measured: dict) -> list[dict]:
    """Rows for a table: the same tokens painted by decoders of four losses (`ch03_gan`), means of the seeds."""
    runs = {name: gan_seeds(measured, name) for name in gan_ways(measured)} | {"true pictures": [measured["true pictures"]]}
    return [{"the decoder went on with": name, "PSNR, dB": _span(r, "psnr_db"),
             "FD to the same scenes": _span(r, "fd_same", digits=3) if "fd_same" in r[0] else "0",
             "sharpness": _span(r, "sharpness", digits=4), "signs (OCR)": _span(r, "signs_ocr", 100, 0, " %"),
             "seeds": len(r) if name != "true pictures" else ""} for name, r in runs.items()]


def gan_verdict(measured: dict) -> str:
    """What each further loss changes beside squared error alone, seed by seed, with 95 % intervals."""
    lines, control = [], gan_seeds(measured, "squared error")
    for name in (n for n in gan_ways(measured) if n.startswith("+")):
        runs = gan_seeds(measured, name)
        db, fd = (_interval([r[key] - c[key] for r, c in zip(runs, control)]) for key in ("psnr_db", "fd_same"))
        share = np.mean([r["fd_same"] / c["fd_same"] for r, c in zip(runs, control)])
        lines.append(f"{name}: {_signed(db, ' dB')}; {share:.2f} times the control's Frechet distance, "
                     f"{_judged(fd, 'farther from the true pictures', 'nearer to the true pictures')}")
    true = measured["true pictures"]["sharpness"]
    duller = [n for n in gan_ways(measured) if mean(gan_seeds(measured, n), "sharpness") <= true]
    lines.append(f"duller than the true pictures, as a blur would be: {', '.join(duller) or 'none of these decoders'}")
    return "\n".join(lines)


def _interval(values: Sequence[float]) -> tuple[float, float, int]:
    return float(np.mean(values)), t_interval(values)[1] if len(values) > 2 else np.inf, len(values)


def gan_wall(measured: dict, caption: str = "") -> None:
    """Four true pictures, and what each decoder of `ch03_gan` paints from their tokens."""
    strips = {"true pictures": measured["true pictures"], **gan_ways(measured)}
    wall({name: r["pictures"] for name, r in strips.items()}, caption, colours=256)
