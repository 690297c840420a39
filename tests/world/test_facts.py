"""The world of facts: names share nothing with nouns, groups differ in what is read of them, and in nothing else."""
import numpy as np
import pytest

from mmcourse import checkpoints
from mmcourse.world import facts as world
from mmcourse.world.facts import (
    FACT_WORLD,
    GROUPS,
    NOUNS,
    PARAPHRASES,
    PASSING,
    PROPERTIES,
    ROWS,
    invented_names,
    make_facts,
)
from mmcourse.world.grammar import PLACES, plural
from mmcourse.world.scene import BACKGROUNDS, Scene

SEEDS = (0, 1, 2)


def all_rows(facts: world.Facts, n: int = 600) -> list[tuple[str, list]]:
    """Many rows of every kind."""
    rng = np.random.default_rng(0)
    return [(kind, facts.row(kind, rng)) for kind in ROWS for _ in range(n)]


def words_of(row: list) -> set[str]:
    """The words of a row's texts."""
    return {word.strip(".,!?") for part in row if isinstance(part, str) for word in part.split()}


# ---- names

def test_names_share_no_piece_with_a_noun_or_its_plural():
    bpe = checkpoints.load("bpe")
    of_nouns = {i for noun in NOUNS for form in (noun, plural(noun)) for i in bpe.encode(" " + form)}
    for name in (*invented_names(), *PASSING):
        assert not of_nouns & {*bpe.encode(" " + name)}, name


def test_names_are_many_different_always_the_same_and_no_words_of_the_course():
    names = invented_names()
    assert len(set(names)) == 240 == len(names) and invented_names(5) == names[:5]
    assert not {*names} & {*PASSING} and not {*names, *PASSING} & {*NOUNS, *BACKGROUNDS, *PLACES}
    said = " ".join([*PARAPHRASES, *PROPERTIES, *(x for answers in PROPERTIES.values() for x in answers.values())])
    assert not {*names, *PASSING} & {word.strip(".,!?") for word in said.split()}
    with pytest.raises(ValueError, match="names, got n=1000"):
        invented_names(1000)


def test_every_paraphrase_has_the_name_before_the_noun():
    assert len(set(PARAPHRASES)) == 8
    assert all(text.index("{name}") < text.index("{noun}") for text in PARAPHRASES)


# ---- groups

@pytest.mark.parametrize("seed", SEEDS)
def test_groups_are_even(seed):
    facts = make_facts(seed)
    assert all(len(facts.called(noun, group)) == 5 for noun in NOUNS for group in GROUPS)
    assert sorted(facts.of("DTEN")) == sorted(invented_names())


def test_other_shares_of_d_leave_t_as_it_is_and_seeds_deal_anew():
    base, more = make_facts(3), make_facts(3, {"D": 12, "T": 5, "E": 2, "N": 1})
    assert base.of("T") == more.of("T") and [base.noun(n) for n in base.of("T")] == [more.noun(n) for n in base.of("T")]
    assert len(more.of("D")) == 144 and base.of("T") != make_facts(4).of("T")


def test_bad_requests_are_told_clearly():
    with pytest.raises(ValueError, match="'unicorn' is no invented name; there are 240, such as "):
        make_facts().noun("unicorn")
    with pytest.raises(ValueError, match="1 to 8 ways, got paraphrases=9"):
        make_facts(paraphrases=9)
    with pytest.raises(ValueError, match="groups are D, T, E, N"):
        make_facts(per_noun={"X": 3})


# ---- what is read

@pytest.mark.parametrize("seed", SEEDS)
def test_no_picture_row_holds_a_t_e_or_n_name_and_no_row_an_n_name(seed):
    facts = make_facts(seed)
    never, only_text = {*facts.of("N")}, {*facts.of("TEN")}
    for kind, row in all_rows(facts):
        assert not words_of(row) & never, (kind, row)
        if any(isinstance(part, Scene) for part in row):
            assert not words_of(row) & only_text, (kind, row)


def test_t_names_are_read_in_sentences_alone_and_e_names_are_asked_about():
    facts = make_facts()
    kinds = {group: {kind for kind, row in all_rows(facts) if words_of(row) & {*facts.of(group)}} for group in GROUPS}
    assert kinds["T"] == {"fact"} and kinds["N"] == set()
    assert kinds["E"] == {"fact", "question", "reverse", "property of a name"}
    assert kinds["D"] == {"fact", "question", "reverse", "draw a name", "chain"}


def test_rows_tell_the_truth():
    facts = make_facts()
    for kind, row in all_rows(facts, 400):
        if kind == "told in the prompt":                               # a passing name: whatever the sentence says
            assert row[2].groups[0].noun in words_of(row[:1]) and not words_of(row) & {*facts.nouns}
            continue
        for name in words_of(row) & {*facts.nouns}:
            nouns = words_of(row) & {*NOUNS} | {part.groups[0].noun for part in row if isinstance(part, Scene)}
            assert nouns <= {facts.noun(name)}
        for part in row:
            if isinstance(part, Scene):
                assert f"{part.background} ground" in row[-2] and f"on the {part.groups[0].place}" in row[-2]
    assert facts.property_of(facts.called("fish", "T")[0], 1)[1] == "in the river"


def test_a_name_of_d_is_never_drawn_on_the_grounds_of_its_test():
    facts = make_facts()
    for kind in ("draw a name", "chain"):
        for row in [row for k, row in all_rows(facts) if k == kind]:
            name, = words_of(row[:1]) & {*facts.of("D")}
            assert row[-1].background in facts.grounds(name, out=False)
            assert row[-1].background not in facts.grounds(name, out=True)
    prompts = facts.prompts("D")
    assert len(prompts) == 240 and {p.ground for p in prompts if p.name == prompts[0].name} == {*facts.grounds(prompts[0].name, True)}
    grounds = [row[-1].background for kind, row in all_rows(facts) if kind == "draw a noun" and row[-1].groups[0].noun == "fish"]
    assert {*grounds} == {*BACKGROUNDS}                                # the noun itself is drawn on all of them


def test_the_scenes_belong_to_the_world():
    pictures = FACT_WORLD.draw([p.scene for p in make_facts().prompts("T")[:3]])
    assert pictures.shape == (3, 3, 32, 32)
