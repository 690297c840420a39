"""Chapter 10's figures and widget: what a strip marks, means and maps by hand, episodes as they were asked for, sentences."""
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from mmcourse import checkpoints, show
from mmcourse.experiments.episodes import LABELS
from mmcourse.experiments.heads import attention_maps
from mmcourse.experiments.learners import WORDS as NET_WORDS
from mmcourse.experiments.learners import glyphs, named_on
from mmcourse.experiments.thing_tokens import CENTRE, ThingTokens
from mmcourse.in_context import EpisodeNet
from mmcourse.show import ch10
from mmcourse.world.glyphs import AT, GROUNDS, Board, draw

RED, BLUE = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])


def plain(colour, side=8):
    return colour[:, None, None].expand(3, side, side)


@pytest.fixture(autouse=True)
def tidy():
    """No figure outlives its test."""
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def vqvae():
    return checkpoints.load("glyph_vqvae")


@pytest.fixture(scope="module")
def tables(vqvae):
    return ThingTokens(vqvae, 64, 20)


@pytest.fixture(scope="module")
def nets():
    torch.manual_seed(0)
    return (EpisodeNet(LABELS, (4, 512), width=16).eval(), EpisodeNet(NET_WORDS, width=16, heads=1).eval())


def texts(drawn, i=0):
    return [text.get_text() for axis in drawn[i][0].axes for text in axis.texts]


def frames(drawn, i=0):
    """The lines of the frames around answers: all that are thick."""
    return [p.get_linestyle() for axis in drawn[i][0].axes for p in axis.patches if p.get_linewidth() == 2.4]


# ---------------------------------------------------------------- strips

PAIRS = [(plain(RED), "dax"), (plain(BLUE), "wug"), (plain(RED), "dax")]


@pytest.mark.parametrize(("answer", "truth", "line", "said"), [
    ("dax", "dax", "-", "the net\nright"), ("wug", "dax", ":", "the net\nwrong ✗"), ("wug", None, "-", "the net")])
def test_an_answer_is_framed_by_whether_it_is_right(drawn, answer, truth, line, said):
    ch10.episode(PAIRS, answer, truth, caption="a strip")
    assert drawn[0][1] == "a strip" and frames(drawn) == [line]
    assert said in texts(drawn) and ("it is" in texts(drawn)) == (line == ":")


def test_the_query_does_not_give_its_answer_away(drawn):
    ch10.episode(PAIRS, "wug")
    assert texts(drawn).count("dax") == 1 and texts(drawn).count("?") == 1
    assert len(drawn[0][0].axes[0].images) == 3


def test_pictures_are_the_same_up_to_a_shade():
    red = plain(RED)
    near, far = red - 1 / 255, red.clone()
    far[2, 3, 3] = 2 / 255
    assert ch10.same(red, near) and not ch10.same(red, far) and not ch10.same(red, plain(RED, 9))
    assert ch10.same("dax", "dax") and not ch10.same("dax", "wug") and not ch10.same("dax", red) and not ch10.same(red, "dax")


def test_bars_are_as_high_as_the_look_and_the_rest_is_said(drawn):
    ch10.episode(PAIRS, "dax", "dax", [0.25, 0.5])
    bars = [p.get_height() for p in drawn[0][0].axes[0].patches if p.get_linewidth() == 0]
    assert bars[1] == pytest.approx(2 * bars[0]) and bars[2] == pytest.approx(bars[0])
    assert {"25", "50", "25 else"} <= set(texts(drawn))


def test_episodes_of_any_length_stand_below_each_other(drawn):
    long = [("dax\non blue", plain(BLUE))] * 16
    ch10.episodes([ch10.Strip(PAIRS, "dax", "dax", [0.1, 0.9], "two layers"), ch10.Strip(long, plain(RED), plain(BLUE)),
                   ch10.Strip(PAIRS[:1], "wug", None, [])], "three")
    fig, axis = drawn[0][0], drawn[0][0].axes[0]
    assert frames(drawn) == ["-", ":", "-"] and "two layers" in texts(drawn)
    boxes = [p.get_bbox() for p in axis.patches]
    assert min(b.y0 for b in boxes) > 0 and max(b.y1 for b in boxes) < fig.get_figheight()
    assert min(b.x0 for b in boxes) > 0 and max(b.x1 for b in boxes) < fig.get_figwidth() < 10
    queries = [p.get_bbox() for p in axis.patches if p.get_linewidth() == 1.4]
    assert len({round(b.x0, 6) for b in queries}) == 1 and queries[0].y0 > queries[1].y1 > queries[1].y0 > queries[2].y1


@pytest.mark.parametrize(("strips", "said"), [([], "a query at least"), ([ch10.Strip([], "dax")], "a query at least"),
                                              ([ch10.Strip(PAIRS, "dax", None, [1.0])], "2 examples but attention to 1")])
def test_what_is_no_episode_is_refused(strips, said):
    with pytest.raises(ValueError, match=said):
        ch10.episodes(strips)


# ---------------------------------------------------------------- curves

def lines_of(axis, width):
    return [line for line in axis.lines if line.get_linewidth() == width]


def test_seeds_are_thin_and_their_mean_is_bold(drawn):
    line = {0: {10: 0.2, 20: 0.4}, 1: {20: 0.8, 10: 0.4, 30: 1.0}}
    ch10.along({"a": {"net": line}, "b": {"net": line, "other": {0: {5: 0.1}}}}, {"jump": 15}, "along", chance={"a": 0.5})
    first, second = drawn[0][0].axes
    (mean,) = lines_of(first, 2.4)
    assert list(mean.get_xdata()) == [10, 20] and mean.get_ydata() == pytest.approx([30, 60])
    assert [list(seed.get_xdata()) for seed in lines_of(first, 0.8)] == [[10, 20], [10, 20, 30]]
    assert lines_of(second, 2.4)[0].get_color() == mean.get_color() != lines_of(second, 2.4)[1].get_color()
    dotted = [[line.get_ydata()[0] for line in lines_of(axis, 1.2) if line.get_linestyle() == ":"] for axis in (first, second)]
    assert dotted == [[50], []] and "jump" in texts(drawn) and drawn[0][1] == "along"


def test_seeds_without_a_common_step_have_no_mean():
    with pytest.raises(ValueError, match="no step in common"):
        ch10.along({"a": {"net": {0: {1: 0.5}, 1: {2: 0.5}}}})
    with pytest.raises(ValueError, match="no line"):
        ch10.along({"a": {}})


@pytest.mark.parametrize(("trained", "shaded"), [(7, True), (15, False)])
def test_what_training_never_had_is_shaded(drawn, trained, shaded):
    ch10.by_examples({"drawn": {15: [0.5], 1: [0.2, 0.4], 7: [0.9, 0.9]}}, trained, 0.1, "by")
    axis = drawn[0][0].axes[0]
    mean = next(line for line in axis.lines if line.get_marker() == "o")
    assert list(mean.get_xdata()) == [1, 7, 15] and mean.get_ydata() == pytest.approx([30, 90, 50])
    seeds = [list(line.get_ydata()) for line in axis.lines if line.get_marker() == "."]
    assert seeds == [[20, 40], [90, 90], [50]]
    assert [p.get_x() for p in axis.patches] == ([7.5] if shaded else [])


# ---------------------------------------------------------------- the map

def map_row(classes, share, seed, looks, end, heart=None):
    along = [{"step": i, "in_context": found} for i, found in enumerate(looks)]
    return {"classes": classes, "share": share, "seed": seed, "along": along, "n": 50, "in_context": end,
            **({} if heart is None else {"in_weights": heart})}


ROWS = [map_row(16, 0.9, 1, [5, 20, 4], 5, 40), map_row(16, 0.9, 0, [2, 10, 8], 10, 50), map_row(None, 0.9, 0, [1, 2, 18], 45),
        map_row(64, 0.9, 0, [20], 50, 50)]


def test_the_map_is_counted_cell_by_cell():
    best, end, heart = ch10.map_cells(ROWS, (16, None), (0.9, 1.0), looks=20).values()
    assert best == {(16, 0.9): [0.5, 1.0], (None, 0.9): [0.9]}
    assert end == {(16, 0.9): [0.2, 0.1], (None, 0.9): [0.9]} and heart == {(16, 0.9): [1.0, 0.8]}


def test_the_map_prints_means_ranges_and_what_is_missing(drawn):
    ch10.heat_map(ROWS, (16, None), (0.9, 1.0), 20, "the map")
    first, _, last = ([text.get_text() for text in axis.texts] for axis in drawn[0][0].axes)
    assert first == ["75", "50–100", "–", "90", "–"] and last == ["90", "80–100", "–", "–", "–"]
    assert drawn[0][1] == "the map" and [t.get_text() for t in drawn[0][0].axes[0].get_yticklabels()] == ["16", "endless"]


# ---------------------------------------------------------------- an episode by hand

def test_there_is_a_word_for_each_label():
    assert len(set(ch10.WORDS)) == LABELS


def test_close_ups_are_the_middle_of_drawn_boards(tables, vqvae):
    things = torch.tensor([tables.of["test"][3], tables.of["train"][5]])
    drawings = draw([Board("white", ((tables.whats[t], AT[CENTRE]),)) for t in things.tolist()])
    middles = vqvae.decode(vqvae.encode(drawings))[:, :, 8:24, 8:24].clamp(0, 1)
    assert torch.allclose(ch10.close_ups(tables, vqvae, things), middles, atol=1e-5)


@pytest.mark.parametrize("asked", "ABC")
def test_an_episode_is_what_was_asked_for(tables, asked):
    found, pool = ch10.by_hand(tables, (1, 0), ("wug", "fep"), ch10.clean_order(" aab b", 15), asked, "red"), tables.of["test"]
    a, b = (pool[1], ch10.WORDS.index("wug")), (pool[0], ch10.WORDS.index("fep"))
    seen = list(zip(found.things[0].tolist(), found.labels[0].tolist()))
    assert seen[:4] == [a, a, b, b] and found.pictures.shape == (1, 5, 16)
    if asked == "C":
        assert seen[4][0] in pool and seen[4][0] not in (a[0], b[0]) and seen[4][1] not in (a[1], b[1])
    else:
        assert seen[4] == {"A": a, "B": b}[asked]
    grounds = [GROUNDS[i] for i in found.grounds[0].tolist()]
    assert grounds[4] == "red" and "red" not in grounds[:4] and bool(found.seen[0, -1]) == (asked != "C")


@pytest.mark.parametrize("task", ch10.TASKS)
def test_the_strip_shows_the_nets_own_answer_and_look(tables, vqvae, nets, task):
    found = ch10.by_hand(tables, (2, 3), ("dax", "wug"), [0, 1, 1], "B", "green")
    names = task == ch10.TASKS[0]
    net, part = ((nets[0], (("chunk", glyphs(tables, found.things)), ("words", found.labels[..., None]))) if names else
                 (nets[1], (("words", named_on(found)), ("chunk", found.pictures))))
    strip, (logits,) = ch10.answered(tables, vqvae, net, task, found), net(part)
    best = logits[0, -1].argmax(-1)
    assert strip.answer == ch10.WORDS[int(best)] if names else torch.allclose(
        strip.answer, vqvae.decode(best.view(1, 4, 4))[0].clamp(0, 1), atol=1e-5)
    maps = attention_maps(net, part)[0, -1]                                                 # (heads, 8, 8)
    assert strip.attention == pytest.approx([float(np.mean([head[6, 2 * i + 1] for head in maps])) for i in range(3)])
    assert ch10.same(strip.truth, "wug") if names else ch10.same(strip.truth, strip.pairs[-1][1])
    assert strip.pairs[3][0] == "wug\ngreen" if not names else strip.pairs[0][1] == "dax"


@pytest.mark.parametrize(("asked", "order"), [("C", "AB"), ("B", "A")])
def test_what_no_example_has_is_a_guess(tables, vqvae, nets, drawn, asked, order):
    ch10.try_episode(tables, vqvae, *nets, order=order, asked=asked)
    assert "a guess, as no example has what is asked" in drawn[0][1] and "the net" in texts(drawn)


@pytest.mark.parametrize(("chosen", "said"), [
    ({"order": " "}, "there is no example yet"), ({"order": "AB" * 8}, "15 examples fit beside the query, got 16: leave out 1"),
    ({"order": "ABX"}, "letters A and B alone, got 'X'"), ({"second": 0}, "two different glyphs"),
    ({"word_b": "dax"}, "two different words"), ({"word_a": "fish"}, "no word 'fish'"), ({"asked": "D"}, "A, B or C"),
    ({"asked": ""}, "A, B or C"), ({"ground": "plaid"}, "the ground one of"), ({"task": "sing"}, "tasks are"),
    ({"first": 20}, "glyphs are 0 to 19"), ({"first": -1}, "glyphs are 0 to 19")])
def test_bad_input_gets_a_sentence(tables, vqvae, nets, drawn, capsys, chosen, said):
    ch10.try_episode(tables, vqvae, *nets, **chosen)
    out = capsys.readouterr().out
    assert out.startswith("That did not work:") and said in out and out.count("\n") == 1 and not drawn


def test_fifteen_examples_fit(tables, vqvae, nets, drawn):
    for task in ch10.TASKS:
        ch10.try_episode(tables, vqvae, *nets, task=task, order="AAB" * 5, asked="B")
    assert [text.startswith("15 examples in the order AABAAB") for _, text in drawn] == [True, True]


def test_the_box_keeps_its_first_episode(tables, vqvae, nets, drawn):
    ch10.episode_box(tables, vqvae, *nets)
    assert len(drawn) == 1 and "4 examples in the order ABBA; A is a dax, B a wug" in drawn[0][1]


# ---------------------------------------------------------------- drawings

@pytest.mark.parametrize(("name", "said"), [("ladder", {"dax\non blue", "more classes", "3  a new word"}),
                                            ("two_steps", {"tag 3", "after layer 2", "“dax”"})])
def test_drawings_say_what_they_show(monkeypatch, capsys, name, said):
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    getattr(show.diagrams.ch10, name)()
    assert said <= {text.get_text() for axis in kept[0].axes for text in axis.texts}
    assert "dax" in capsys.readouterr().out
    monkeypatch.undo()


def test_a_word_carries_the_picture_of_its_own_tag(monkeypatch):
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    show.diagrams.ch10.two_steps()
    axis = kept[0].axes[0]
    tags = [(text.get_position()[0], text.get_text()) for text in axis.texts if text.get_text().startswith("tag")]
    middle = {image: (image.get_extent()[0] + image.get_extent()[1]) / 2 for image in axis.images}
    large, small = ([image for image in axis.images if (np.ptp(image.get_extent()[:2]) > 4) == big] for big in (True, False))
    at = {tag: [image.get_array() for image in large for x, name in tags if name == tag and abs(x - middle[image]) < 0.1]
          for _, tag in tags}
    carried = {tag: image.get_array() for image in small for x, tag in tags if abs(x - middle[image]) < 0.1}
    assert set(carried) == {"tag 1", "tag 2"} and not np.array_equal(carried["tag 1"], carried["tag 2"])
    for tag, picture in carried.items():
        assert len(at[tag]) == 2 and all(np.array_equal(one, picture) for one in at[tag])
    assert all(np.array_equal(one, carried["tag 1"]) for one in at["tag 3"])
    monkeypatch.undo()


# ---------------------------------------------------------------- what the study found

def study_of(**counts):
    """A study in which everything went as was expected, but for these counts."""
    right = {"k1": 100, "no_support_k1": 0, "held_k4": 100, "held_two": 0, **counts}

    def row(**fields):
        return {"n": 100, "seed": 0, **fields}
    cents = {key: {"cents": [-1, value, value, value]} for key, value in
             (("right_k0", 600), ("right_k1", counts.get("cents", 100)), ("wrong_k1", 600))}
    price = {"1": 2.3, "4": counts.get("price", 12.0)}
    return {"plan": {"size": {"looks": 100, "tuned": 100}},
            "forced": [row(name="two layers", k1=right["k1"]), row(name="one layer", k1=counts.get("one", 50))],
            "map": [row(classes=c, share=0.9, in_context=k, along=[{"step": 1, "in_context": 95}])
                    for c, k in ((16, 5), (512, 5), (4096, counts.get("end", 10)))],
            "binding": [row(name="with echo", k1=right["k1"], no_support_k1=right["no_support_k1"])],
            "flat": [row(k1=counts.get("flat", 20))],
            "rules": [row(name="sign", held_k4=right["held_k4"]), row(name="sign, 4 values", held_k4=counts.get("four", 0))],
            "composing": [row(said=False, held_two=right["held_two"]), row(said=True, held_two=counts.get("said", 0))],
            "voices": [row(**cents)],
            "tuning": [row(start="forced", k1={"right": {"1": 50, "4": 99}, "price": price})]}


def test_verdicts_follow_the_counts():
    assert set(ch10.verdicts(study_of()).values()) == {"holds"}
    for counts, broken in (({"k1": 40}, {"H1", "H3"}), ({"one": 99}, {"H1"}), ({"end": 93}, {"H2"}), ({"no_support_k1": 50}, {"H3"}),
                           ({"flat": 99}, {"H3"}), ({"held_k4": 10}, {"H4"}), ({"four": 90}, {"H4"}), ({"held_two": 60}, {"H5"}),
                           ({"said": 60}, {"H5"}), ({"cents": 500}, {"H6"}), ({"price": 5.0}, {"H7"})):
        found = ch10.verdicts(study_of(**counts))
        assert {name[:2] for name, verdict in found.items() if verdict != "holds"} >= broken, counts
        assert {name[:2] for name, verdict in found.items() if verdict != "holds"} <= broken, counts


def test_rows_shares_and_words_of_a_study():
    study = {"forced": [{"name": "a", "seed": 0, "n": 4, "k1": 1, "along": [{"step": 2, "k1": 3}]},
                        {"name": "b", "seed": 1, "n": 4, "k1": 4, "along": [{"step": 2, "k1": 1}]}],
             "voices": [{"right_k1": {"cents": [-1, 10, 30, 20]}}, {"right_k1": {"cents": [40, -1, -1]}}]}
    assert ch10.shares(study, "forced", "k1") == [0.25, 1] and ch10.shares(study, "forced", "k1", name="b") == [1]
    assert ch10.say([0.25, 1]) == "25.0 / 100.0 %" and ch10.cents_of(study, "right_k1") == [20, 40]
    assert ch10.along_of(study["forced"], "k1", 4) == {0: {2: 0.75}, 1: {2: 0.25}}
    with pytest.raises(ValueError, match="no row of 'forced'"):
        ch10.rows_of(study, "forced", name="c")
