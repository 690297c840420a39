"""Exercises of chapter 08: three kinds of words, the masked loss, keeping the surest, errors in letters, cropping to
ink, how likely a draft is, and another letter."""
import math

import torch
import torch.nn.functional as F

from mmcourse.exercises import register
from mmcourse.painters import TokenPainter, masked_loss, score_in_order, shifted

# ---------------------------------------------------------------- three kinds of words

def which_stratum(word, cut, drawn) -> int:
    """0: the word was drawn. 1: it was not, but each of its pieces was, in some other word. 2: one never was."""
    if word in drawn:
        return 0
    known = {piece for other in drawn for piece in cut(other)}
    return 1 if set(cut(word)) <= known else 2


def _one_piece_is_enough(word, cut, drawn):
    known = {piece for other in drawn for piece in cut(other)}
    return 0 if word in drawn else 1 if set(cut(word)) & known else 2


def _looks_at_letters(word, cut, drawn):
    return 0 if word in drawn else 1 if set(word) <= set("".join(drawn)) else 2


def _pieces_make_it_seen(word, cut, drawn):
    known = {piece for other in drawn for piece in cut(other)}
    return 0 if set(cut(word)) <= known else 2


def _the_other_way_round(word, cut, drawn):
    known = {piece for other in drawn for piece in cut(other)}
    return 0 if word in drawn else 1 if known <= set(cut(word)) else 2


@register("08.stratum", reference=which_stratum, minutes=4, difficulty=1,
          wrong=[_one_piece_is_enough, _looks_at_letters, _pieces_make_it_seen, _the_other_way_round],
          hint="collect the pieces of all drawn words in a set; `<=` asks whether one set lies within another")
def check_stratum(fn):
    parts = {"signs": (1, 2), "boards": (3, 2), "sign": (1,), "board": (3,), "signboard": (1, 3), "boarder": (3, 9),
             "dragons": (8, 2), "oars": (7,)}
    drawn = {"signs", "boards"}
    for word, expected, why in [
            ("signs", 0, "it was drawn itself"),
            ("sign", 1, "it was not drawn, and its only piece 1 occurs in 'signs'"),
            ("signboard", 1, "its pieces 1 and 3 occur in two drawn words"),
            ("boarder", 2, "its piece 9 occurs in no drawn word; one known piece is not enough"),
            ("oars", 2, "all its letters were drawn, but its piece 7 never was"),
            ("dragons", 2, "its piece 8 occurs in no drawn word")]:
        got = fn(word, parts.__getitem__, drawn)
        assert got == expected, f"{word!r} with the pieces {parts[word]}: {expected} is right ({why}), {got!r} came"


# ---------------------------------------------------------------- hiding places

def _always_half(model, prompts, ids):
    hidden = torch.rand(ids.shape) < 0.5
    hidden[:, 0] |= ~hidden.any(1)
    logits = model(ids.masked_fill(hidden, model.codes), prompts)
    return F.cross_entropy(logits[hidden], ids[hidden])


def _one_share_for_all(model, prompts, ids):
    hidden = torch.rand(ids.shape) < torch.cos(math.pi / 2 * torch.rand(()))
    hidden[:, 0] |= ~hidden.any(1)
    logits = model(ids.masked_fill(hidden, model.codes), prompts)
    return F.cross_entropy(logits[hidden], ids[hidden])


def _uniform_share(model, prompts, ids):
    hidden = torch.rand(ids.shape) < torch.rand(len(ids), 1)
    hidden[:, 0] |= ~hidden.any(1)
    logits = model(ids.masked_fill(hidden, model.codes), prompts)
    return F.cross_entropy(logits[hidden], ids[hidden])


def _counts_all_places(model, prompts, ids):
    hidden = torch.rand(ids.shape) < torch.cos(math.pi / 2 * torch.rand(len(ids), 1))
    hidden[:, 0] |= ~hidden.any(1)
    logits = model(ids.masked_fill(hidden, model.codes), prompts)
    return F.cross_entropy(logits.flatten(0, 1), ids.flatten())


def _may_hide_nothing(model, prompts, ids):
    hidden = torch.rand(ids.shape) < torch.cos(math.pi / 2 * torch.rand(len(ids), 1))
    logits = model(ids.masked_fill(hidden, model.codes), prompts)
    return F.cross_entropy(logits[hidden], ids[hidden])


def _shows_what_it_asks(model, prompts, ids):
    hidden = torch.rand(ids.shape) < torch.cos(math.pi / 2 * torch.rand(len(ids), 1))
    hidden[:, 0] |= ~hidden.any(1)
    logits = model(ids.masked_fill(~hidden, model.codes), prompts)
    return F.cross_entropy(logits[hidden], ids[hidden])


class _Asked:
    """A painter of `codes` ids that notes what it is shown, and says one and the same thing of each place."""

    def __init__(self, codes: int, places: int):
        self.codes, self.shown = codes, []
        self.logits = torch.randn(1, places, codes, generator=torch.Generator().manual_seed(3))

    def __call__(self, ids, prompts):
        self.shown.append((ids, prompts))
        return self.logits.expand(len(ids), -1, -1)


def _hides_in_place(model, prompts, ids):
    hidden = torch.rand(ids.shape) < torch.cos(math.pi / 2 * torch.rand(len(ids), 1))
    hidden[:, 0] |= ~hidden.any(1)
    ids[hidden] = model.codes
    return F.cross_entropy(model(ids, prompts)[hidden], ids[hidden])


@register("08.masked_loss", reference=masked_loss, minutes=10, difficulty=2,
          wrong=[_hides_in_place, _always_half, _one_share_for_all, _uniform_share, _counts_all_places, _may_hide_nothing,
                 _shows_what_it_asks],
          hint="a share for each picture, (B, 1); a place is hidden where torch.rand of the ids' shape is below it; "
               "masked_fill hides; index logits and ids with the same mask")
def check_masked_loss(fn):
    codes, places, model = 7, 8, _Asked(7, 8)
    ids, prompts = torch.randint(codes, (3000, places)), torch.randint(1, 9, (3000, 4))
    whole = ids.clone()
    try:
        loss = fn(model, prompts, ids)
    finally:
        assert torch.equal(ids, whole), "your function changed the ids that it was given: then it asks for nothing; make new ones"
    assert len(model.shown) == 1, f"ask the model once; yours asked {len(model.shown)} times"
    shown, told = model.shown[0]
    assert shown.shape == ids.shape and torch.equal(told, prompts), (
        "call model(ids with some hidden, prompts): all places of all pictures, and the prompts as they are")
    hidden = shown == codes
    assert torch.equal(shown[~hidden], ids[~hidden]), (
        f"a place that is not hidden shows its own id; hide the others with model.codes (here {codes})")
    share = hidden.float().mean(1)
    assert (share > 0).all(), "a picture of which nothing is hidden teaches nothing: hide one place at least"
    spread = share.std().item()
    assert spread > 0.25, (
        "draw how many are hidden anew for each picture: between pictures your shares differ by "
        f"{spread:.2f} (standard deviation), they should by about 0.32")
    assert abs(share.mean().item() - 0.645) < 0.03, (
        f"cos(pi u / 2) of the places, u uniform, are 64 % on average; yours hide {share.mean():.0%}")
    assert isinstance(loss, torch.Tensor) and loss.ndim == 0, "return one number, a tensor of shape ()"
    logits = model.logits.expand(len(ids), -1, -1)
    expected, everything = F.cross_entropy(logits[hidden], ids[hidden]), F.cross_entropy(logits.flatten(0, 1), ids.flatten())
    slip = " (only the hidden places count)" if torch.isclose(loss, everything, atol=1e-5) else ""
    assert torch.isclose(loss, expected, atol=1e-5), (
        f"the mean cross-entropy of the hidden ids is {expected:.4f} here, {loss:.4f} came{slip}")


# ---------------------------------------------------------------- the surest first

def keep_surest(ids, drawn, sure, left, unknown):
    """Fill the open places with what was drawn for them, the surest first, until `left` are open."""
    open_ = ids == unknown
    rank = sure.masked_fill(~open_, torch.inf).argsort(1, descending=True).argsort(1)
    return torch.where(open_ & (rank < ids.shape[1] - left), drawn, ids)


def _paints_over(ids, drawn, sure, left, unknown):
    rank = sure.masked_fill(ids != unknown, torch.inf).argsort(1, descending=True).argsort(1)
    return torch.where(rank < ids.shape[1] - left, drawn, ids)


def _the_least_sure(ids, drawn, sure, left, unknown):
    open_ = ids == unknown
    rank = sure.masked_fill(~open_, -torch.inf).argsort(1).argsort(1)
    return torch.where(open_ & (rank < ids.shape[1] - left), drawn, ids)


def _order_is_no_rank(ids, drawn, sure, left, unknown):
    open_ = ids == unknown
    rank = sure.masked_fill(~open_, torch.inf).argsort(1, descending=True)
    return torch.where(open_ & (rank < ids.shape[1] - left), drawn, ids)


def _forgets_the_known(ids, drawn, sure, left, unknown):
    open_ = ids == unknown
    rank = sure.argsort(1, descending=True).argsort(1)                 # known places take ranks by chance
    return torch.where(open_ & (rank < ids.shape[1] - left), drawn, ids)


def _fills_as_many_as_stay(ids, drawn, sure, left, unknown):
    open_ = ids == unknown
    rank = sure.masked_fill(~open_, -torch.inf).argsort(1, descending=True).argsort(1)
    return torch.where(open_ & (rank < left), drawn, ids)


def _known_are_worth_minus_ten(ids, drawn, sure, left, unknown):
    open_ = ids == unknown
    cut = sure.masked_fill(~open_, -10.0).sort(1, descending=True).values
    fill = open_.sum(1, keepdim=True) - left
    return torch.where(open_ & (sure >= cut.gather(1, (fill - 1).clamp(min=0))) & (fill > 0), drawn, ids)


@register("08.keep_surest", reference=keep_surest, minutes=8, difficulty=2,
          wrong=[_known_are_worth_minus_ten, _paints_over, _the_least_sure, _order_is_no_rank,
                 _forgets_the_known, _fills_as_many_as_stay],
          hint="give the known places the sureness inf; argsort(descending=True) twice makes ranks of it; a place is "
               "filled if it is open and its rank is below N - left")
def check_keep_surest(fn):
    ids = torch.tensor([[9, 9, 9, 9], [4, 9, 9, 9]])
    drawn = torch.tensor([[0, 1, 2, 3], [5, 6, 7, 8]])
    sure = torch.tensor([[-0.5, -3.0, -0.1, -2.0], [-9.0, -1.0, -4.0, -2.0]])
    before = ids.clone()
    got = fn(ids, drawn, sure, 1, 9)
    assert torch.equal(ids, before), "your function changed the tensor that it was given: make a new one"
    assert isinstance(got, torch.Tensor) and got.shape == ids.shape, "return ids of the same shape, (B, N)"
    assert got[1, 0] == 4, f"a place that is known keeps its id: 4 stays 4, {got[1, 0].item()} came"
    for row, want in enumerate([[0, 9, 2, 3], [4, 6, 9, 8]]):
        assert got[row].tolist() == want, (
            f"ids {before[row].tolist()} (9: open), drawn {drawn[row].tolist()}, sure {sure[row].tolist()}, one place "
            f"stays open: {want} is right, {got[row].tolist()} came")
    generator = torch.Generator().manual_seed(0)
    ids = torch.where(torch.rand(50, 32, generator=generator) < 0.6, 99, torch.randint(99, (50, 32), generator=generator))
    ids[:, :12] = 99
    drawn, sure = torch.randint(99, (50, 32), generator=generator), 4 - 20 * torch.rand(50, 32, generator=generator)
    for left in (11, 5, 0):
        got, open_ = fn(ids, drawn, sure, left, 99), ids == 99
        stay = got == 99
        assert (stay.sum(1) == left).all(), (
            f"{left} places of each picture stay open, yours leave {stay.sum(1).unique().tolist()}")
        assert torch.equal(got[~open_], ids[~open_]), "a place that is known keeps its id"
        filled = open_ & ~stay
        assert torch.equal(got[filled], drawn[filled]), "a place that is filled gets the id that was drawn for it"
        least = sure.masked_fill(~filled, torch.inf).amin(1)
        assert (sure.masked_fill(~stay, -torch.inf).amax(1) <= least).all(), (
            "a place stays open though it is surer than one that was filled")


# ---------------------------------------------------------------- errors in letters

def character_error_rate(read, words) -> float:
    """Letters to change, add or leave out, for each letter of the words."""
    errors = 0
    for a, b in zip(read, words, strict=True):
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            before, row[0] = row[0], i
            for j, y in enumerate(b, 1):
                before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
        errors += row[-1]
    return errors / sum(map(len, words))


def _letter_by_letter(read, words):
    errors = sum(abs(len(a) - len(b)) + sum(x != y for x, y in zip(a, b)) for a, b in zip(read, words))
    return errors / sum(map(len, words))


def _mean_of_rates(read, words):
    return sum(character_error_rate([a], [b]) for a, b in zip(read, words)) / len(words)


def _divides_by_what_was_read(read, words):
    return character_error_rate(read, words) * sum(map(len, words)) / max(1, sum(map(len, read)))


def _only_changes_and_additions(read, words):
    errors = 0
    for a, b in zip(read, words):
        table = [[max(i, j) if 0 in (i, j) else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
        for i in range(1, len(a) + 1):
            for j in range(1, len(b) + 1):
                table[i][j] = min(table[i - 1][j - 1] + (a[i - 1] != b[j - 1]), table[i][j - 1] + 1)
        errors += table[-1][-1]
    return errors / sum(map(len, words))


def _swaps_count_once(read, words):
    swapped = sum(sorted(a) == sorted(b) and a != b and sum(x != y for x, y in zip(a, b)) == 2 for a, b in zip(read, words))
    return character_error_rate(read, words) - swapped / sum(map(len, words))


@register("08.character_error_rate", reference=character_error_rate, minutes=12, difficulty=2,
          wrong=[_swaps_count_once, _letter_by_letter, _mean_of_rates, _divides_by_what_was_read, _only_changes_and_additions],
          hint="a table: entry (i, j) is the distance of the first i letters read and the first j letters of the word, "
               "the least of: above + 1, left + 1, diagonal + (0 if the two letters are equal, else 1)")
def check_character_error_rate(fn):
    for read, words, expected, why in [
            (["class"], ["class"], 0, "nothing is wrong"),
            (["clazs"], ["class"], 1 / 5, "one letter is changed"),
            (["clas"], ["class"], 1 / 5, "one letter is missing"),
            (["cclass"], ["class"], 1 / 5, "one letter too many at the front, and nothing else is wrong"),
            (["lass"], ["class"], 1 / 5, "one letter is missing at the front, and nothing else is wrong"),
            ([""], ["class"], 1, "all five are missing"),
            (["xxxxxxxx"], ["abc"], 8 / 3, "three changed, five too many: a rate can be above 1"),
            (["sitting"], ["kitten"], 3 / 6, "two changed, one too many"),
            (["calss"], ["class"], 2 / 5, "two letters have changed places: one is left out, one added"),
            (["abc", "alphabet"], ["abd", "alphabet"], 1 / 11, "one error in eleven letters: all words together")]:
        got = fn(read, words)
        assert isinstance(got, int | float), f"return a number, not {got!r}"
        assert abs(got - expected) < 1e-6, f"read {read}, meant {words}: {expected:.3f} is right ({why}), {got:.3f} came"


# ---------------------------------------------------------------- cropping to ink

def crop_to_ink(image: torch.Tensor, dark: float = 0.4, margin: int = 1) -> torch.Tensor:
    """The part of a picture (3, H, W) that has ink, and `margin` pixels around it; all of it if there is none."""
    ink = image.amax(0) < dark                                         # (H, W)
    if not ink.any():
        return image
    ys, xs = ink.nonzero(as_tuple=True)
    return image[:, max(0, ys.min() - margin):ys.max() + 1 + margin, max(0, xs.min() - margin):xs.max() + 1 + margin]


def _loses_the_last_line(image, dark=0.4, margin=1):
    ys, xs = (image.amax(0) < dark).nonzero(as_tuple=True)
    if not len(ys):
        return image
    return image[:, max(0, ys.min() - margin):ys.max() + margin, max(0, xs.min() - margin):xs.max() + margin]


def _any_dark_channel(image, dark=0.4, margin=1):
    ys, xs = (image.amin(0) < dark).nonzero(as_tuple=True)
    if not len(ys):
        return image
    return image[:, max(0, ys.min() - margin):ys.max() + 1 + margin, max(0, xs.min() - margin):xs.max() + 1 + margin]


def _wraps_around(image, dark=0.4, margin=1):
    ys, xs = (image.amax(0) < dark).nonzero(as_tuple=True)
    if not len(ys):
        return image
    return image[:, ys.min() - margin:ys.max() + 1 + margin, xs.min() - margin:xs.max() + 1 + margin]


def _never_without_ink(image, dark=0.4, margin=1):
    ys, xs = (image.amax(0) < dark).nonzero(as_tuple=True)
    return image[:, max(0, ys.min() - margin):ys.max() + 1 + margin, max(0, xs.min() - margin):xs.max() + 1 + margin]


def _mean_colour(image, dark=0.4, margin=1):
    return crop_to_ink(image.mean(0, keepdim=True).expand_as(image), dark, margin)


def _one_threshold(image, dark=0.4, margin=1):
    return crop_to_ink(image, 0.4, margin)


@register("08.crop_to_ink", reference=crop_to_ink, minutes=5, difficulty=1,
          wrong=[_mean_colour, _one_threshold, _loses_the_last_line, _any_dark_channel, _wraps_around, _never_without_ink],
          hint="image.amax(0) < dark says where ink is; .nonzero(as_tuple=True) gives its rows and columns; a slice that "
               "begins below 0 begins at the other end: use max(0, ...)")
def check_crop_to_ink(fn):
    def crop(image, *more):
        try:
            return fn(image, *more)
        except NotImplementedError:
            raise
        except (RuntimeError, IndexError, ValueError) as error:
            if (image.amax(0) < 0.4).any():
                raise
            raise AssertionError(f"a picture without ink comes back whole; yours raised: {error}") from None

    image = torch.full((3, 12, 20), 0.9)
    assert torch.equal(crop(image), image), "a picture without ink comes back whole"
    image[:, 4:7, 6:15] = 0.1
    got = crop(image)
    assert got.shape == (3, 5, 11), (
        f"ink in rows 4 to 6 and columns 6 to 14, margin 1: a crop of 5 x 11 pixels is right, {tuple(got.shape[1:])} came")
    assert torch.equal(got, image[:, 3:8, 5:16]), "the crop has the right size, but lies elsewhere"
    assert crop(image, 0.4, 0).shape == (3, 3, 9), "with a margin of 0 it is the ink's own rectangle"
    assert torch.equal(crop(image, 0.05), image), "ink is what is below `dark`: with dark = 0.05 this picture has none"
    image[:2, 0, 0] = 0.0
    assert crop(image).shape == (3, 5, 11), (
        "a pixel with one bright colour (here pure blue) is ground, not ink: look at its brightest colour")
    corner = torch.full((3, 12, 20), 0.9)
    corner[:, 0:2, 18:20] = 0.1
    assert crop(corner, 0.4, 2).shape == (3, 4, 4), (
        "ink in the upper right corner, margin 2: the margin ends where the picture does, so the crop has 4 x 4 pixels")


# ---------------------------------------------------------------- how likely is a draft?

def _not_moved_on(model, prompts, ids):
    logp = model(ids, prompts).log_softmax(-1)
    return logp.gather(2, ids[..., None])[..., 0].sum(1)


def _a_mean(model, prompts, ids):
    return score_in_order(model, prompts, ids) / ids.shape[1]


def _logits_as_they_are(model, prompts, ids):
    return model(shifted(ids, model.codes), prompts).gather(2, ids[..., None])[..., 0].sum(1)


def _one_for_all(model, prompts, ids):
    return score_in_order(model, prompts, ids).mean()


def _a_loss(model, prompts, ids):
    return -score_in_order(model, prompts, ids)


@register("08.score_in_order", reference=score_in_order, minutes=6, difficulty=2,
          wrong=[_not_moved_on, _a_mean, _logits_as_they_are, _one_for_all, _a_loss],
          hint="`in_order_loss` without its mean: log_softmax, gather the log-probability of each id, and a sum over places")
def check_score_in_order(fn):
    torch.manual_seed(0)
    model = TokenPainter(11, 6, prompt=2, places=5, width=8, layers=1, heads=2).eval()
    with torch.no_grad():
        model.head.weight.mul_(40)                                     # far from all ids being alike
        ids, prompts = torch.randint(6, (4, 5)), torch.randint(1, 11, (4, 2))
        got = fn(model, prompts, ids)
        assert isinstance(got, torch.Tensor) and got.shape == (4,), (
            f"one number for each of the 4 pictures, shape (4,), not {tuple(getattr(got, 'shape', ()))}")
        expected = torch.zeros(4)
        for place in range(5):                                         # one place after another, as it would be painted
            known = F.pad(ids[:, :place], (1, 0), value=6)
            expected += model(known, prompts)[:, -1].log_softmax(-1).gather(1, ids[:, place:place + 1])[:, 0]
        slips = {" (that is its negative: a loss)": -expected, " (that is the mean over places: take the sum)": expected / 5}
        slip = next((why for why, value in slips.items() if torch.allclose(got, value, atol=1e-4)),
                    ": log probabilities (log_softmax), given the prompt and the ids before, and never the id itself?")
        assert torch.allclose(got, expected, atol=1e-4), (
            f"asked for one id after another the four pictures have {[round(v, 2) for v in expected.tolist()]} nats, "
            f"{[round(v, 2) for v in got.tolist()]} came{slip}")


# ---------------------------------------------------------------- another letter

def misspell(prompts: torch.Tensor, which: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
    """Prompts of the kind `letters` (B, P); in each of them letter number `which` (B,) is replaced by `letters` (B,)."""
    changed = prompts.clone()
    changed[torch.arange(len(prompts)), which] = letters
    return changed


def _in_place(prompts, which, letters):
    prompts[torch.arange(len(prompts)), which] = letters
    return prompts


def _all_columns(prompts, which, letters):
    changed = prompts.clone()
    changed[:, which] = letters
    return changed


def _counts_from_one(prompts, which, letters):
    changed = prompts.clone()
    changed[torch.arange(len(prompts)), which - 1] = letters
    return changed


def _squeezes_it_in(prompts, which, letters):
    rows = [torch.cat([row[:i], letter[None], row[i:-1]]) for row, i, letter in zip(prompts, which, letters)]
    return torch.stack(rows)


def _all_that_are_alike(prompts, which, letters):
    old = prompts[torch.arange(len(prompts)), which][:, None]
    return torch.where(prompts == old, letters[:, None], prompts)


@register("08.misspell", reference=misspell, minutes=3, difficulty=1,
          wrong=[_all_that_are_alike, _in_place, _all_columns, _counts_from_one, _squeezes_it_in],
          hint="clone; changed[rows, columns] = letters, with two index tensors of length B: torch.arange(B) and `which`")
def check_misspell(fn):
    prompts = torch.arange(1, 21).view(2, 10)
    prompts[:, 5] = prompts[:, 1]                                      # a letter that a word has twice
    before, which = prompts.clone(), torch.tensor([1, 4])
    for letters in (torch.tensor([77, 88]), torch.tensor([0, 0])):
        got = fn(prompts, which, letters)
        assert torch.equal(prompts, before), "your function changed the prompts that it was given: clone them first"
        assert got.shape == prompts.shape, f"a prompt keeps its 10 places; got the shape {tuple(got.shape)}"
        for row, place in enumerate(which.tolist()):
            letter = letters[row].item()
            want = [letter if i == place else v for i, v in enumerate(before[row].tolist())]
            assert got[row].tolist() == want, (
                f"in {before[row].tolist()} letter number {place} (counted from 0) is to be {letter}, and nothing else changes: "
                f"{want} is right, {got[row].tolist()} came")
