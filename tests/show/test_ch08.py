"""Chapter 08's figures and verdicts: computed from the marks of words, and honest about what was not measured."""
import copy

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.experiments.spelling import STRATA, prompt_ids
from mmcourse.files import results
from mmcourse.show import ch08
from mmcourse.studies import ch08_words as study
from mmcourse.world.signs import draw_signs, sign_scene


def made_up(chance, seeds=(0, 1)) -> dict:
    """A result in which a case writes each word with the probability `chance(arm, prompt, stratum, unique, moved)`."""
    found = {"plan": {"words": None}, "seen": study.SEEN, "rows": [], "ceilings": {}, "settings": {}, "price": {}, "search": []}
    inside, words = ch08.kinds(found), ch08.asked(found)
    rng = np.random.default_rng(0)
    cases = [(prompt, None, False) for prompt in ("letters", "bpe", "both")] + [("both", 2_000, False), ("both", 20_000, False),
                                                                              ("both", None, True)]
    for arm in ch08.ARMS:
        for prompt, unique, moved in cases:
            for seed in seeds:
                right = rng.random(len(words)) < [chance(arm, prompt, k, unique, moved) for k in inside]
                counts = {kind: [int(right[inside == i].sum()), int((inside == i).sum())] for i, kind in enumerate(STRATA)}
                found["rows"].append({
                    "arm": arm, "prompt": prompt, "unique": unique, "moved": moved, "seed": seed, "words": counts,
                    "letters": {kind: [n - k, 6 * n] for kind, (k, n) in counts.items()}, "audit": counts, "agree": 500,
                    "by_length": {str(n): [1, 2] for n in range(3, 9)}, "by_place": [[1, 2]] * 8,
                    "marks": "".join(str(int(r)) for r in right), "steps": 9, "loss": 1.0})
        found["settings"][arm] = {"chosen": {"guidance": 1.0, "steps": 8}, "table": [
            {"guidance": g, "steps": n, "right": 0.5} for g in (1.0, 2.0) for n in (4, 8)]}
        found["price"][arm] = {"guidance": 1.0, "steps": 8, "passes": 8, "flops": 9e6, "ms": 3.0, "parameters": 700_000}
        gain = 0.2 if arm == ch08.ARMS[0] else 0.0
        found["search"] += [{"arm": arm, "prompt": prompt, "seed": seed, "n": 200, "rows": [
            {"drafts": n, "passes": 8 * n, "right": 100, "possible": 150,
             "marks": "".join(str(int(r)) for r in np.arange(200) < 80 + 200 * gain * (n > 1))} for n in (1, 2, 4, 8)]}
            for prompt in ("letters", "bpe") for seed in seeds]
        found.setdefault("longer", []).append({"arm": arm, "prompt": "bpe", "factor": 4, "words": counts})
    found["ceilings"] = {world: {way: {"words": counts, "audit": counts} for way in ("true", "tokens", "latents")}
                         for world in ("on the grid", "off the grid")}
    found["pipe"] = {"n": 4, **{f"{t}, {d}": "1101" for t in ("true", "written") for d in ("vq", "diffusion")}}
    return found


def expected(arm, prompt, kind, unique, moved):
    """A world in which all hypotheses are true."""
    right = {0: 0.9, 1: 0.8, 2: 0.8}[kind] if prompt != "bpe" else (0.8, 0.4, 0.02)[kind]
    right -= 0.12 * (arm == ch08.ARMS[1]) + 0.2 * (arm in ch08.ARMS[2:])
    if unique == 2_000:
        right = 0.6 if arm == ch08.ARMS[1] else 0.2
    return max(0.02, right - 0.4 * (moved and arm in ch08.ARMS[:2]))


@pytest.fixture(autouse=True)
def tidy():
    """No figure outlives its test."""
    yield
    plt.close("all")


EMPTY = {"plan": {"words": None}, "seen": study.SEEN}


def test_the_words_are_the_studys():
    assert ch08.asked(EMPTY) == study.test_words(study.Plan())
    assert np.bincount(ch08.kinds(EMPTY))[0] == study.SEEN


def test_the_verdicts_follow_the_marks():
    told = {name: verdict for name, verdict, _ in ch08.verdicts(made_up(expected, seeds=(0, 1, 2)))}
    assert told.pop("H3 both") != "FAILS" and set(told.values()) == {"holds"}, told
    upside_down = made_up(lambda arm, prompt, k, unique, moved: 0.2 + 0.5 * (arm in ch08.ARMS[2:]) + 0.2 * (prompt == "bpe"),
                          seeds=(0,))
    told = {name[:2]: verdict for name, verdict, _ in ch08.verdicts(upside_down)}
    assert (told["H1"], told["H2"], told["H3"]) == ("FAILS", "FAILS", "undecided")


def test_who_writes_nothing_has_nothing_to_lose():
    found = made_up(lambda arm, *_: 0.8 if arm in ch08.ARMS[:2] else 0.0)
    name, verdict, why = ch08.verdicts(found)[4]
    assert name.startswith("H5") and verdict == "void" and "none to lose" in why
    lost = made_up(lambda arm, prompt, k, unique, moved: 0.0 if moved else 0.4)
    assert ch08.verdicts(lost)[4][1] == "void" and "lost all" in ch08.verdicts(lost)[4][2]


def test_what_was_not_measured_is_said_and_nothing_breaks(drawn, capsys):
    assert {verdict for _, verdict, _ in ch08.verdicts(EMPTY)} == {"not measured"}
    for draw in FIGURES:
        draw(EMPTY, "a caption")
        assert "not measured" in capsys.readouterr().out, draw.__name__
    assert not drawn, "an empty figure says nothing"
    part = made_up(expected, seeds=(0,))
    part["rows"] = [row for row in part["rows"] if row["arm"] != "flow on latents" and not row["moved"]]
    assert dict((n, v) for n, v, _ in ch08.verdicts(part))["H5 tokenizer"] == "not measured"
    for draw in FIGURES:
        draw(part, "a caption")


def test_the_verdict_has_three_sentences_and_says_what_is_missing():
    paradigm, prompt, tokenizer = ch08.sentences(made_up(expected, seeds=(0, 1, 2)))
    assert "ahead of surest first (+12" in paradigm and "ahead of flow on pixels" in paradigm
    assert "of which they write 2 to 3 %" in prompt
    assert tokenizer.startswith("Tokenizer: through its tokens")
    same = ch08.sentences(made_up(lambda *_: 0.5))
    assert "not clearly ahead of or behind" in same[0] and len(same) == 3
    assert all(text.count("not measured") >= 3 for text in ch08.sentences(EMPTY))


FIGURES = [ch08.strata_table, ch08.ceilings_table, ch08.audit_table, ch08.accuracy, ch08.by_length_and_place, ch08.data_axis,
           ch08.moved_table, ch08.price_table, ch08.search_figure, ch08.pipe_table, ch08.settings_figure, ch08.longer_table,
           ch08.differences_table]


@pytest.mark.parametrize("draw", FIGURES, ids=lambda f: f.__name__)
def test_figures_and_tables(draw, drawn, capsys):
    draw(made_up(expected), "a caption")
    if draw.__name__.endswith("table"):
        assert "a caption" in capsys.readouterr().out
    else:
        assert drawn[0][1] == "a caption"


@pytest.mark.parametrize(("trainings", "bounds", "said"), [
    ([0.2], {"least": 0}, "holds"), ([0.02], {"least": 0}, "undecided"), ([-0.2], {"least": 0}, "FAILS"),
    ([0.0], {"least": 0}, "holds"), ([0.2, 0.21, 0.22], {"least": 0}, "holds"), ([-0.2, -0.3, -0.25], {"least": 0}, "FAILS"),
    ([-0.04, 0.41, 0.42], {"least": 0}, "undecided"), ([0.01, 0.0, 0.01], {"least": -0.1, "most": 0.1}, "holds")])
def test_a_verdict_needs_other_words_and_other_trainings_to_agree(trainings, bounds, said):
    """Each training's difference, on 400 words of which some are right in one case alone."""
    n = 400
    values = np.array([np.arange(n) < round(abs(mean) * n) for mean in trainings]) * np.sign(trainings)[:, None]
    if trainings == [0.02]:
        values[0, -6:] = -1                                            # eight against six: any number of words would do
    assert ch08.decide(values, **bounds) == said
    assert ch08.decide(None) == "not measured"


def test_one_training_on_the_same_words_is_as_wide_as_three():
    """Three trainings are not three times as many words."""
    one, three = (made_up(lambda *_: 0.5, seeds) for seeds in ((0,), (0, 1, 2)))
    width = [high - low for _, low, high in (ch08.share(found, [2], "in order") for found in (one, three))]
    assert width[1] > 0.9 * width[0]
    copied = copy.deepcopy(one)
    copied["rows"] += [row | {"seed": 1} for row in one["rows"]]
    assert ch08.share(copied, [2], "in order") == pytest.approx(ch08.share(one, [2], "in order"))


def test_places_that_are_not_known_are_grey():
    class Decoder:
        @staticmethod
        def decode(ids):
            return torch.zeros(len(ids), 3, 32, 64)
    ids = torch.full((1, 32), 7)
    ids[0, 9] = 256                                                    # row 1, column 1
    picture = ch08.half_painted(ids, 256, Decoder)
    assert (picture[0, :, 8:16, 8:16] == torch.tensor(ch08.GREY)).all() and picture.sum() == pytest.approx(3 * 64 * ch08.GREY, rel=1e-4)


def test_a_film_has_a_frame_for_each_pass_and_the_result():
    net = torch.nn.Identity()

    def paint():
        for i in (1.0, 1.0, 2.0):
            net(torch.full((1, 2), i))
        return torch.zeros(1, 2)
    assert [frame.mean().item() for frame in ch08.watch(net, paint)] == [1.0, 2.0, 0.0]
    assert not net._forward_pre_hooks


def test_signs_and_prompts_can_be_drawn(drawn):
    pictures = draw_signs([sign_scene(word) for word in ("one", "two", "three")])
    ch08.strips(pictures, ["a", "b", "c"], "three", columns=2)
    ch08.by_row({"first": pictures, "second": pictures}, ["x", "y", "z"], "twice")
    ch08.prompts(["class", "learning"], "two prompts")
    ch08.failures({"one": pictures}, ["one", "two", "three"], {"one": ["one", "tvo", ""]}, "failures")
    assert [text for _, text in drawn] == ["three", "twice", "two prompts", "failures"]
    assert [axis.get_title() for axis in drawn[-1][0].axes] == ["two: tvo", "three: nothing", "", "", "", ""]
    with pytest.raises(ValueError, match="2 titles"):
        ch08.strips(pictures, ["a", "b"])


@pytest.mark.parametrize(("word", "said"), [("w0rd", "no '0'"), ("", "type a word"), ("encyclopedia", "got 12"),
                                            ("two words", "no ' '")])
def test_a_word_that_cannot_be_drawn_gets_a_sentence(word, said, drawn, capsys):
    ch08.written(word, lambda *asked: pytest.fail("must not be asked"))
    out = capsys.readouterr().out
    assert said in out and out.count("\n") == 1 and not drawn


def test_a_word_of_too_many_pieces_is_drawn_from_its_letters(drawn, capsys):
    def paint(word, arm, kind):
        prompt_ids(word, kind)
        return draw_signs([sign_scene(word)])[0]
    ch08.written("zqxjkvwz", paint)
    assert "spell it in letters" in capsys.readouterr().out and len(drawn) == 1 and len(drawn[0][0].axes) == len(ch08.ARMS)


def test_a_word_is_drawn_by_all_and_read(drawn):
    def paint(word, arm, kind):
        return draw_signs([sign_scene(word)])[0]
    ch08.ask(lambda word: ch08.written(word, paint, read=lambda pictures: ["class"] * len(pictures)), "Class")
    (fig, text), = drawn
    assert text == "class: seen, class" and len(fig.axes) == 2 * len(ch08.ARMS) and "read as class" in fig.axes[0].get_title()


@pytest.mark.parametrize("name", ["arms", "orders"])
def test_the_drawings_describe_themselves(name, monkeypatch, capsys):
    getattr(show.diagrams.ch08, name)()
    assert len(capsys.readouterr().out.split()) > 20


def test_the_text_of_section_9_says_what_the_table_has():
    """The verdict's paragraphs, sentence by sentence, on the committed table."""
    found = results("ch08_words")
    letters = {arm: ch08.share(found, ch08.NEW, arm, "letters") for arm in ch08.ARMS}
    ceiling = sum(found["ceilings"]["on the grid"]["tokens"]["words"][kind][0] for kind in STRATA[1:])
    near = [arm for arm in ch08.ARMS if letters[arm][0] > ceiling / 396 - 0.1]
    assert near == ["in order", "surest first", "flow on latents"], "three of four spell nearly as well as true pictures are read"
    assert letters["flow on pixels"][2] < 0.75, "the flow on pixels lags"
    seen = {arm: ch08.share(found, [0], arm, "bpe")[0] for arm in ch08.ARMS}
    assert seen["in order"] > 0.85 and max(v for arm, v in seen.items() if arm != "in order") < 0.05, "who learns pieces by heart"
    assert all(ch08.share(found, [2], arm, "bpe")[0] < 0.02 for arm in ch08.ARMS), "a piece never drawn is written by nobody"
    told = {arm: ch08.difference(found, {"arm": arm}, {"arm": arm, "prompt": "letters"}) for arm in ch08.ARMS}
    assert sum(d[2] < 0 for d in told.values()) >= 2, "telling both is not free: most painters lose words by it"
    moved = {arm: ch08.share(found, ch08.NEW, arm, moved=True) for arm in ch08.ARMS}
    assert moved["in order"][1] > 0.1 and max(moved[arm][2] for arm in ch08.ARMS[1:]) < 0.05, "only in order still writes some words"
    few = {arm: ch08.share(found, ch08.NEW, arm, unique=2_000)[0] for arm in ch08.ARMS}
    some, every = ({arm: ch08.share(found, ch08.NEW, arm, **case)[0] for arm in ch08.ARMS} for case in ({"unique": 20_000}, {}))
    assert all(few[arm] < some[arm] - 0.05 for arm in ch08.ARMS if arm != "flow on pixels"), "2,000 pictures cost words"
    assert all(some[arm] > every[arm] - 0.03 for arm in ("in order", "flow on latents")), "20,000 do nearly as well as all"
    lowest = sorted(row.mean() for row in ch08.by_training(found, ch08.NEW, {"arm": ch08.ARMS[1], "unique": 20_000})[0])
    assert round(100 * lowest[0]) == 56 and lowest[1] > 0.9, "but for one training of the masked painter"
    leads = [100 * ch08.differences(found, {"arm": ch08.ARMS[1], **c}, {"arm": ch08.ARMS[0], **c}).mean() for c in ({}, {"unique": 2_000})]
    assert [round(x) for x in leads] == [12, 12], "the order does not turn"
    pixels = [round(100 * row.mean()) for row in ch08.by_training(found, ch08.NEW, {"arm": "flow on pixels", "prompt": "letters"})[0]]
    assert pixels == [62, 30, 30] and round(100 * letters["flow on pixels"][0]) == 41
    two = [{"arm": arm, "unique": 2_000} for arm in ch08.ARMS[1::-1]]
    each = (100 * ch08.differences(found, *two).mean(1)).round().tolist()
    assert (sum(d > 0 for d in each), sum(d < 0 for d in each), min(each), max(each)) == (3, 2, -27, 42), "H4, training by training"
    masked = [mark.mean() for mark in ch08.by_training(found, ch08.NEW, two[0])[0]]
    assert sum(m > 0.9 for m in masked) == 2 and min(masked) < 0.5, "nearly all words in two trainings, under half in another"
    longer = {row["arm"]: [k / n for k, n in row["words"].values()] for row in found["longer"]}
    assert longer["flow on latents"][0] > 0.89 and longer["surest first"][0] > 0.5, "four times the training: slower, not unable"
    assert longer["in order"][1] > 1 / 3 and max(longer[arm][1] for arm in ch08.ARMS[1:]) < 0.1, "new words of drawn pieces"
    assert all(row["right"] == 0 for arm in ch08.ARMS[1:] for row in found["settings_moved"][arm]["table"]), "no setting helps"
    runs = ch08.searches(found, "bpe")["in order"]
    one, best, possible = (sum(run["rows"][i][key] for run in runs) for i, key in ((0, "right"), (-1, "right"), (-1, "possible")))
    assert 0.2 < (best - one) / (possible - one) < 0.3, "its own score finds about a quarter of what a perfect choice would"
