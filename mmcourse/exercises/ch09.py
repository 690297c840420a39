"""Exercises of chapter 09: clean names, blind scores, two calls, their product, chain rows, own pictures, names as the
unit of chance, and one experiment to change."""
from dataclasses import replace

import numpy as np

from mmcourse.exercises import register
from mmcourse.judges.metrics import bootstrap_interval, paired_bootstrap
from mmcourse.world.facts import NOUNS, Prompt, a, caption_of, make_facts, question_of

# ---------------------------------------------------------------- names that share no piece with a noun

def shares_a_piece(names, nouns, encode) -> list:
    """The names of which some token is also a token of a noun, or of its plural."""
    taken = {i for noun in nouns for form in (noun, noun + "s") for i in encode(" " + form)}
    return [name for name in names if taken & set(encode(" " + name))]


def _forgets_the_space(names, nouns, encode):
    taken = {i for noun in nouns for form in (noun, noun + "s") for i in encode(form)}
    return [name for name in names if taken & set(encode(name))]


def _forgets_plurals(names, nouns, encode):
    taken = {i for noun in nouns for i in encode(" " + noun)}
    return [name for name in names if taken & set(encode(" " + name))]


def _compares_letters(names, nouns, encode):
    return [name for name in names if any(noun in name for noun in nouns)]


def _keeps_the_clean(names, nouns, encode):
    found = set(shares_a_piece(names, nouns, encode))
    return [name for name in names if name not in found]


def _asks_for_all_pieces(names, nouns, encode):
    taken = {i for noun in nouns for form in (noun, noun + "s") for i in encode(" " + form)}
    return [name for name in names if set(encode(" " + name)) <= taken]


PIECES = (" key", " keys", "key", " star", "st", " va", "va", " lo", "lo", " mo", "mo", "s", " ", "st", "ar", "k", "e", "y")


def _encode(text: str) -> list[int]:
    """A toy tokenizer: the longest piece first. `star` has one piece after a space and two others without it; the
    plural of `star` ends in `s`, that of `key` is a piece of its own."""
    ids = []
    while text:
        piece = max((p for p in PIECES if text.startswith(p)), key=len)
        ids.append(PIECES.index(piece))
        text = text[len(piece):]
    return ids


@register("09.shares_a_piece", reference=shares_a_piece, minutes=5, difficulty=1,
          wrong=[_forgets_the_space, _forgets_plurals, _compares_letters, _keeps_the_clean, _asks_for_all_pieces],
          hint="collect the ids of all nouns and plurals in one set, each word encoded with a space before it; then look at "
               "each name's ids")
def check_shares_a_piece(fn):
    names, nouns = ["valo", "keylo", "mos", "vast", "momo", "valokey"], ["key", "star"]
    expected = ["keylo", "mos"]                                          # the `key` in `valokey` is another piece than ` key`
    got = list(fn(names, nouns, _encode))
    why = {tuple(wrong(names, nouns, _encode)): said for wrong, said in (
        (_compares_letters, "compare tokens, not letters: the net never sees letters"),
        (_forgets_plurals, "'mos' ends in the piece 's', which 'stars' has too: plurals count"),
        (_forgets_the_space, "in a sentence a word stands behind a space, and ' star' is another token than 'star'"),
        (_keeps_the_clean, "return the names that must go, not those that may stay"),
        (_asks_for_all_pieces, "one shared piece is enough"))}.get(tuple(got), "")
    assert got == expected, (f"of {names} with the nouns {nouns}, {expected} share a piece, not {got}"
                             + (f": {why}" if why else ""))
    assert list(fn([], nouns, _encode)) == [], "no names: no names that share a piece"


# ---------------------------------------------------------------- what a blind painter scores

def blind_score(drawn, wanted) -> float:
    """The share that would be right, on average, if the same pictures were dealt out at random."""
    return sum(drawn.count(noun) * wanted.count(noun) for noun in set(wanted)) / len(wanted) ** 2


def _one_in_twelve(drawn, wanted):
    return 1 / len(set(wanted))


def _is_right(drawn, wanted):
    return sum(x == y for x, y in zip(drawn, wanted)) / len(wanted)


def _most_frequent(drawn, wanted):
    return max(wanted.count(noun) for noun in wanted) / len(wanted)


def _pictures_alone(drawn, wanted):
    return sum(drawn.count(noun) ** 2 for noun in set(drawn)) / len(drawn) ** 2


@register("09.blind_score", reference=blind_score, minutes=4, difficulty=1,
          wrong=[_one_in_twelve, _is_right, _most_frequent, _pictures_alone],
          hint="a picture of a noun, dealt to a random question, is right with the share that the noun has among the "
               "questions; add that up over the nouns")
def check_blind_score(fn):
    cases = ((["cat", "cat", "fish", "key"], ["cat", "fish", "fish", "key"], 5 / 16),
             (["cat"] * 4, ["cat", "fish", "key", "star"], 1 / 4), (["whale"] * 2, ["cat", "fish"], 0.0),
             (["cat", "cat", "cat", "fish"], ["cat", "cat", "cat", "fish"], 10 / 16))
    for drawn, wanted, expected in cases:
        got = float(fn(drawn, wanted))
        slips = ((_is_right, "that is the score itself: the order of the pictures must not matter"),
                 (_one_in_twelve, "a painter who knows nothing may still have favourites: use what is drawn"),
                 (_most_frequent, "this painter does not draw the most frequent noun alone"),
                 (_pictures_alone, "use the questions' shares too, not the pictures' alone"))
        why = next((f": {said}" for wrong, said in slips if abs(got - wrong(drawn, wanted)) < 1e-9), "")
        assert abs(got - expected) < 1e-9, f"drawn {drawn}, wanted {wanted}: {expected:.4f} is right, {got:.4f} came{why}"


# ---------------------------------------------------------------- say it first, in two calls

def say_then_draw(prompts, ask, draw) -> list:
    """Two calls: what is it? Then a caption with the answer in the name's place."""
    answers = ask([question_of(p.name) for p in prompts])
    return draw([caption_of(answer, p.place, p.ground) for p, answer in zip(prompts, answers)])


def _looks_it_up(prompts, ask, draw):
    ask([question_of(p.name) for p in prompts])
    return draw([p.told for p in prompts])


def _still_says_the_name(prompts, ask, draw):
    ask([question_of(p.name) for p in prompts])
    return draw([p.text for p in prompts])


def _asks_for_the_noun(prompts, ask, draw):
    answers = ask([question_of(p.noun) for p in prompts])
    return draw([caption_of(answer, p.place, p.ground) for p, answer in zip(prompts, answers)])


def _one_answer_for_all(prompts, ask, draw):
    answers = ask([question_of(p.name) for p in prompts])
    return draw([caption_of(answers[0], p.place, p.ground) for p in prompts])


def _draws_the_answer_alone(prompts, ask, draw):
    return draw(ask([question_of(p.name) for p in prompts]))


FISH = [Prompt("nevi", "fish", "left", "blue"), Prompt("dova", "apple", "right", "green"),
        Prompt("heri", "key", "left", "white")]
ANSWERS = {"nevi": "a fish", "dova": "a whale", "heri": "a star"}    # two of them wrong: what is said is what is drawn


@register("09.say_then_draw", reference=say_then_draw, minutes=5, difficulty=1,
          wrong=[_looks_it_up, _still_says_the_name, _asks_for_the_noun, _one_answer_for_all, _draws_the_answer_alone],
          hint="ask question_of(p.name) for all prompts at once; hand draw the list of "
               "caption_of(answer, p.place, p.ground)")
def check_say_then_draw(fn):
    asked = []

    def ask(questions):
        asked.extend(questions)
        return [ANSWERS.get(q.split()[1], "a tree") for q in questions]

    got = fn(FISH, ask, lambda captions: [f"picture of {text}" for text in captions])
    expected = [f"picture of {caption_of(ANSWERS[p.name], p.place, p.ground)}" for p in FISH]
    assert asked, "your function never asks: the first call is ask([...questions...])"
    assert set(asked) == {question_of(p.name) for p in FISH}, (
        f"ask for the names, {question_of(FISH[0].name)!r}, and for nothing else; you asked {asked[0]!r}")
    assert isinstance(got, list) and len(got) == len(FISH), f"{len(FISH)} prompts make a list of {len(FISH)} pictures"
    why = ("you drew the true noun: nobody told the net that; draw what it *said*, right or wrong"
           if got[1] == f"picture of {FISH[1].told}" else
           "the caption still says the name: put the answer in its place" if got[1] == f"picture of {FISH[1].text}" else
           "the place and the ground are lost: caption_of(answer, p.place, p.ground)" if got[1][11:] == "a whale" else
           "each prompt has its own answer" if "fish" in str(got[1]) else "")
    assert got == expected, (f"for {FISH[1].text!r} and the answer 'a whale', draw {expected[1][11:]!r}, not "
                             f"{str(got[1])[11:]!r}" + (f": {why}" if why else ""))


# ---------------------------------------------------------------- what two calls should score

def predicted(said, wanted, draws) -> float:
    """The share that say-then-draw should get right: said rightly, and that noun drawn rightly."""
    return sum(draws[noun] for answer, noun in zip(said, wanted) if answer == noun) / len(wanted)


def _words_alone(said, wanted, draws):
    return sum(x == y for x, y in zip(said, wanted)) / len(wanted)


def _product_of_means(said, wanted, draws):
    return _words_alone(said, wanted, draws) * sum(draws[noun] for noun in wanted) / len(wanted)


def _whatever_was_said(said, wanted, draws):
    return sum(draws.get(answer, 0) for answer in said) / len(wanted)


def _of_the_right_answers(said, wanted, draws):
    right = [noun for answer, noun in zip(said, wanted) if answer == noun]
    return sum(draws[noun] for noun in right) / max(1, len(right))


@register("09.predicted", reference=predicted, minutes=5, difficulty=2,
          wrong=[_words_alone, _product_of_means, _whatever_was_said, _of_the_right_answers],
          hint="prompt by prompt: the chance of a right picture is draws[noun] if the answer was right, and 0 if not; take the "
               "mean over all prompts")
def check_predicted(fn):
    fair = dict.fromkeys(NOUNS, 0.3)
    cases = ((["cat", "fish", "", "cat"], ["cat", "fish", "key", "fish"], fair | {"cat": 0.5, "fish": 0.9, "key": 0.8}, 1.4 / 4),
             (["cat", "cat"], ["cat", "cat"], fair | {"cat": 0.9}, 0.9),
             (["key", "a fi"], ["cat", "fish"], dict.fromkeys(NOUNS, 1.0), 0.0))
    for said, wanted, draws, expected in cases:
        got = float(fn(said, wanted, draws))
        slips = ((_words_alone, "a right word may still be drawn wrongly: count draws[noun], not 1"),
                 (_product_of_means, "nouns that are said rightly may be easier to draw than others: multiply prompt by prompt, "
                                     "then take the mean"),
                 (_whatever_was_said, "a wrong word, drawn well, is a wrong picture: it counts 0"),
                 (_of_the_right_answers, "divide by all prompts, not by the right answers alone"))
        why = next((f": {text}" for wrong, text in slips if abs(got - wrong(said, wanted, draws)) < 1e-9), "")
        part = {noun: draws[noun] for noun in wanted}
        assert abs(got - expected) < 1e-9, (f"said {said}, wanted {wanted}, draws {part} ...: {expected:.4f} is right, "
                                            f"{got:.4f} came{why}")


# ---------------------------------------------------------------- the chain, taught on D alone

def chain_rows(facts) -> list:
    """Name, noun, picture in one row: of the names of D, on their grounds of the training."""
    return [[p.text, p.told, p.scene] for p in facts.prompts("D", out=False)]


def _tells_all(facts):
    return [[p.text, p.told, p.scene] for p in facts.prompts("DTE", out=False)]


def _on_the_tests_grounds(facts):
    return [[p.text, p.told, p.scene] for p in facts.prompts("D")]


def _draws_before_it_says(facts):
    return [[p.text, p.scene, p.told] for p in facts.prompts("D", out=False)]


def _says_the_name_twice(facts):
    return [[p.text, p.text, p.scene] for p in facts.prompts("D", out=False)]


def _forgets_to_say(facts):
    return [[p.text, p.scene] for p in facts.prompts("D", out=False)]


@register("09.chain_rows", reference=chain_rows, minutes=5, difficulty=2,
          wrong=[_tells_all, _on_the_tests_grounds, _draws_before_it_says, _says_the_name_twice, _forgets_to_say],
          hint="facts.prompts(\"D\", out=False) are the prompts of the training; a prompt has text, told and scene")
def check_chain_rows(fn):
    facts = make_facts(per_noun={"D": 1, "T": 1, "E": 1, "N": 1})
    rows = [list(row) for row in fn(facts)]
    assert rows, "there are no rows: the names of D have prompts"
    expected = chain_rows(facts)
    for row in rows:
        name = str(row[0]).split()[1]
        group = facts.groups.get(name, "")
        assert group in ("", "D"), f"{name!r} is of group {group}: a picture row with it gives the answer of the test away"
    assert all(len(row) == 3 for row in rows), (
        f"a row has three parts, caption, caption, scene; one of yours has {len(rows[0])}")
    assert all(isinstance(row[1], str) and not isinstance(row[2], str) for row in rows), (
        "first say, then draw: the scene comes last")
    assert rows[0][1] != rows[0][0], "the second caption says the noun (prompt.told): it repeats the name in yours"
    key = lambda row: (row[0], row[1])  # noqa: E731
    test = {p.text for p in facts.prompts("D")}
    assert not any(row[0] in test for row in rows), f"{rows[0][0]!r} is asked in the test: take the other grounds (out=False)"
    assert sorted(rows, key=key) == sorted(expected, key=key), (
        f"{len(expected)} rows, such as {expected[0][:2]}; yours are {len(rows)}, such as {rows[0][:2]}")


# ---------------------------------------------------------------- self-distillation: what it may learn from itself

def own_rows(prompts, said, pictures) -> list:
    """Captions with the name, and the pictures that the net drew after saying; without those after no answer at all."""
    answers = {a(noun) for noun in NOUNS}
    return [(p.text, picture) for p, words, picture in zip(prompts, said, pictures) if words in answers]


def _keeps_all(prompts, said, pictures):
    return [(p.text, picture) for p, words, picture in zip(prompts, said, pictures)]


def _looks_at_the_truth(prompts, said, pictures):
    return [(p.text, picture) for p, words, picture in zip(prompts, said, pictures) if words == a(p.noun)]


def _under_the_noun(prompts, said, pictures):
    answers = {a(noun) for noun in NOUNS}
    return [(caption_of(words, p.place, p.ground), picture) for p, words, picture in zip(prompts, said, pictures)
            if words in answers]


def _true_drawings(prompts, said, pictures):
    answers = {a(noun) for noun in NOUNS}
    return [(p.text, p.scene) for p, words in zip(prompts, said) if words in answers]


def _pictures_move_up(prompts, said, pictures):
    answers = {a(noun) for noun in NOUNS}
    return list(zip([p.text for p, words in zip(prompts, said) if words in answers], pictures))


@register("09.own_rows", reference=own_rows, minutes=7, difficulty=2,
          wrong=[_pictures_move_up, _keeps_all, _looks_at_the_truth, _under_the_noun, _true_drawings],
          hint="an answer is one of a(noun) for the twelve nouns; keep (p.text, picture) where it is, whether it is true or not")
def check_own_rows(fn):
    prompts = [*FISH, Prompt("rova", "bee", "right", "red"), Prompt("lodu", "cat", "left", "blue")]
    said, pictures = ["", "a whale", "a fi", "a fish", "in a tree"], ["p0", "p1", "p2", "p3", "p4"]
    got = [tuple(row) for row in fn(prompts, said, pictures)]
    assert all(len(row) == 2 for row in got), "each row is a pair: the caption and the picture"
    assert not any(row[1] in ("p0", "p2", "p4") for row in got), (
        f"{said[0]!r}, {said[2]!r} and {said[4]!r} are no answers (a noun with its article): drop their pictures")
    assert not any(isinstance(row[1], type(prompts[0].scene)) for row in got), (
        "that is the true drawing: the net learns from its own pictures alone")
    assert any("p1" in row for row in got), (
        "you dropped 'a whale', said of a thing that is an apple: only the truth knows that it is wrong, and the net does not "
        "have the truth")
    assert got == [(prompts[1].text, "p1"), (prompts[3].text, "p3")], (
        f"the caption is the one with the name, {prompts[1].text!r}, beside its own picture, 'p1': that is what shall "
        f"lead to it; your first row is {got[0]}")
    blind = [replace(p, noun="tree") for p in prompts]
    assert [tuple(row) for row in fn(blind, said, pictures)] == got, "the rows must not depend on the true noun"


# ---------------------------------------------------------------- by chance: names, not prompts

def paired_by_name(hits_a, hits_b, names, rng) -> tuple:
    """Where the mean of a - b lies (95 %), drawn again by names: prompts of one name stand or fall together."""
    every = list(dict.fromkeys(names))
    a_by_name, b_by_name = ([np.mean([h for h, name in zip(hits, names) if name == one]) for one in every]
                            for hits in (hits_a, hits_b))
    return paired_bootstrap(a_by_name, b_by_name, rng)


def _by_prompt(hits_a, hits_b, names, rng):
    return paired_bootstrap(hits_a, hits_b, rng)


def _the_other_way_round(hits_a, hits_b, names, rng):
    return paired_by_name(hits_b, hits_a, names, rng)


def _not_paired(hits_a, hits_b, names, rng):
    every = list(dict.fromkeys(names))
    means = [[np.mean([h for h, name in zip(hits, names) if name == one]) for one in every] for hits in (hits_a, hits_b)]
    (low_a, high_a), (low_b, high_b) = (bootstrap_interval(m, rng) for m in means)
    return low_a - high_b, high_a - low_b


def _first_prompts_alone(hits_a, hits_b, names, rng):
    first = [list(names).index(name) for name in dict.fromkeys(names)]
    return paired_bootstrap([hits_a[i] for i in first], [hits_b[i] for i in first], rng)


def _blocks_of_four(hits_a, hits_b, names, rng):
    return paired_bootstrap(*(np.reshape(hits, (-1, 4)).mean(1) for hits in (hits_a, hits_b)), rng)


@register("09.paired_by_name", reference=paired_by_name, minutes=10, difficulty=2,
          wrong=[_blocks_of_four, _by_prompt, _the_other_way_round, _not_paired, _first_prompts_alone],
          hint="take the mean of each name's prompts for both arms (two lists, one number a name, in one order), and hand "
               "them to paired_bootstrap")
def check_paired_by_name(fn):
    rng = np.random.default_rng
    names = [f"n{i % 24}" for i in range(96)]                            # 24 names, 4 prompts each
    luck = rng(0).random(24)
    hits_a = [float(luck[i % 24] < 0.6) for i in range(96)]              # a name is right in all its prompts or in none
    hits_b = [float(luck[i % 24] < 0.3) for i in range(96)]
    low, high = (float(x) for x in fn(hits_a, hits_b, names, rng(1)))
    mean = float(np.mean(hits_a) - np.mean(hits_b))
    assert low <= high, f"return (low, high), the lower end first: {low:.3f}, {high:.3f} came"
    turned = " (that is b - a)" if low <= -mean <= high else ""
    assert low <= mean <= high, (
        f"the mean of a - b is {mean:+.3f}: your interval, {low:+.3f} to {high:+.3f}, leaves it out{turned}")
    expected = paired_by_name(hits_a, hits_b, names, rng(1))
    width, right = high - low, expected[1] - expected[0]
    by_prompt = _by_prompt(hits_a, hits_b, names, rng(1))
    why = ("too narrow: 96 prompts are only 24 names, and a name stands or falls with all of its four"
           if abs(width - (by_prompt[1] - by_prompt[0])) < 0.15 * right else
           "too wide: both arms were asked the same names, so take the difference of each name, and then draw again"
           if width > 1.3 * right else "")
    assert abs(width - right) < 0.25 * right, f"the interval is {right:.3f} wide, yours {width:.3f}" + (f": {why}" if why else "")
    hits_a[24:48] = [1.0] * 24
    low, high = fn(hits_a, hits_b, names, rng(2))
    want = paired_by_name(hits_a, hits_b, names, rng(2))
    assert abs(low - want[0]) + abs(high - want[1]) < 0.1, (
        f"all prompts of a name count, not its first alone: {want[0]:+.3f} to {want[1]:+.3f} is right, {low:+.3f} to "
        f"{high:+.3f} came")


# ---------------------------------------------------------------- predict first, then change the experiment

def more_drawn(deal, times) -> dict:
    """The same experiment with `times` as many names that are drawn, and nothing else changed."""
    return {**deal, "D": deal["D"] * times}


def _changes_the_first(deal, times):
    deal["D"] = deal["D"] * times
    return deal


def _more_of_all(deal, times):
    return {group: n * times for group, n in deal.items()}


def _takes_from_the_told(deal, times):
    return {**deal, "D": deal["D"] * times, "T": deal["T"] - deal["D"] * (times - 1)}


def _adds(deal, times):
    return {**deal, "D": deal["D"] + times}


@register("09.more_drawn", reference=more_drawn, minutes=7, difficulty=1,
          wrong=[_changes_the_first, _more_of_all, _takes_from_the_told, _adds],
          hint="a new dict, {**deal, \"D\": ...}: the old one is still needed for the comparison")
def check_more_drawn(fn):
    for deal, times in (({"D": 2, "T": 2, "E": 1, "N": 2}, 2), ({"D": 3, "T": 5, "E": 5, "N": 5}, 3),
                        ({"D": 4, "T": 5, "E": 5, "N": 5}, 0)):
        before = dict(deal)
        got = fn(deal, times)
        assert deal == before, "you changed the deal that you were given: the first experiment needs it still; make a new dict"
        others = {group: got.get(group) for group in "TEN"}
        assert others == {group: before[group] for group in "TEN"}, (
            f"one thing may change, D: of {before}, the others must stay; yours are {others}")
        assert got["D"] == times * before["D"], (
            f"{times} times {before['D']} names of D are {times * before['D']}, not {got['D']}")
