"""Chapter 13's studies shown: verdicts follow from the rows, and each claim can fail."""
import pytest

from mmcourse.show import inside_studies
from mmcourse.show.inside_studies import CONTEXTS, FAMILIES, SEEDS


def sae_rows():
    def net(seed, kind):
        trained, small = kind == "trained", 0.001 * int(seed)
        marks = {"feature": 0.97, "neuron": 0.9, "principal": 0.6, "coordinate": 0.6, "random": 0.7, "told": 0.9, "base": 0.03}

        def context(name):
            out = {basis: dict.fromkeys(FAMILIES, value + small) for basis, value in marks.items()}
            if name == "said":
                out["neuron"]["noun"] = 0.7
            if not trained:
                out["feature"] |= {"noun": 0.05 if name == "said" else 0.8 + small, "ground": 0.95 + small, "letter": 0.99 + small}
            else:
                out["feature"]["letter"] = 0.5
            return out
        return {"explained": (0.9 if trained else 0.93) + small, **{name: context(name) for name in CONTEXTS}}

    def row(target=0.0, others=0.0, wanted=0.0, seed="0"):
        return {key: value + 0.001 * int(seed) for key, value in
                (("target", target), ("others", others), ("broken", 0.0), ("wanted", wanted), ("clean", wanted))}

    def edits(seed):
        ground = {"ablated": row(0.08, seed=seed), "another": row(seed=seed), "random": row(seed=seed),
                  "swapped x 1": row(0.7, 0.0, 0.66, seed), "swapped x 2": row(0.9, 0.0, 0.9, seed)}
        noun = {way: row(seed=seed) for way in ground}
        return {"right": 1.0, "ground, picture": ground, "noun, picture": noun, "noun, said": noun}

    def steering(seed):
        wanted = {"1 features": 0.0, "16 features": 0.1, "all features": 0.2, "states": 0.5}
        return {edit: {f"{way} x {gain}": row(0.5, 0.1, value, seed) for way, value in wanted.items() for gain in (1, 2)}
                for edit in ("ground, picture", "noun, said")}
    return {"nets": {kind: {seed: net(seed, kind) for seed in SEEDS} for kind in inside_studies.NETS},
            "edits": {seed: edits(seed) for seed in SEEDS}, "steering": {seed: steering(seed) for seed in SEEDS}}


def hop_rows():
    def read(seed):
        small = 0.001 * int(seed)

        def spot(name):
            d, t = {"question, says": (0.99, 0.98), "caption, opens": (0.8, 0.2)}.get(name, (0.35, 0.15))
            return {group: [0.08, value / 2, value + small, value + small] for group, value in (("D", d), ("T", t), ("E", t), ("N", 0.08))}
        found = {name: spot(name) for name in inside_studies.SPOTS}
        return {"asked": {}, "drawn": {}, "lens": found, "probe": found}

    def patched(seed):
        return {group: {"own": own, "name": [0.1, own, own + 0.01, own], "after": [own, 0.95, 0.5, own]}
                for group, own in (("T", 0.18), ("D", 0.89 + 0.001 * int(seed)))}

    def back(seed):
        best = {"source": ["question", "says", 2], "target": ["opens", "blocks.0"], "deciding": 0.2, "others": 0.18 + 0.001 * int(seed),
                "another": 0.17, "own": 0.18}
        return {"tried": {"a -> b": 0.1, "c -> d": 0.2}, "best": best}

    def cut(seed):
        return {group: {"pictures": 0.5, "after": 0.4, "after and pictures": 0.08 + 0.001 * int(seed), "pictures, the noun after": 0.95}
                for group in "TD"}
    makers = {"read": read, "patched": patched, "back": back, "cut": cut}
    return {name: {seed: make(seed) for seed in SEEDS} for name, make in makers.items()}


TABLES = {"S": (sae_rows, inside_studies.sae_verdicts), "P": (hop_rows, inside_studies.hop_verdicts)}


@pytest.mark.parametrize("table", TABLES)
def test_all_as_expected(table):
    rows, verdicts = TABLES[table]
    found = {claim: text.split()[0] for claim, text in verdicts(rows()).items()}
    assert set(found.values()) == {"holds"}, found


def marked(found, kind, context, basis, family, value):
    for row in found["nets"][kind].values():
        row[context][basis][family] = value


def caption(found, section, edit, way, key, value):
    for row in found[section].values():
        row[edit][way] = {**row[edit][way], key: value}


def in_states(found, what, spot, group, value):
    for row in found["read"].values():
        row[what] = {**row[what], spot: {**row[what][spot], group: [value] * 4}}


def each(found, section, change):
    for row in found[section].values():
        change(row)


@pytest.mark.parametrize(("table", "claim", "change"), [
    ("S", "S1, precision", lambda f: marked(f, "trained", "picture", "feature", "noun", 0.7)),
    ("S", "S1, above", lambda f: marked(f, "trained", "picture", "neuron", "noun", 0.99)),
    ("S", "S1, about", lambda f: marked(f, "trained", "said", "neuron", "noun", 0.95)),
    ("S", "S2, the best neuron above the best of the coordinates", lambda f: marked(f, "trained", "picture", "coordinate", "noun", 0.95)),
    ("S", "S3, variance explained", lambda f: each(f["nets"], "untrained", lambda row: row.update(explained=0.5))),
    ("S", "S3, the twin's precision for nouns", lambda f: marked(f, "untrained", "picture", "feature", "noun", 0.2)),
    ("S", "S3, the twin's precision for grounds", lambda f: marked(f, "untrained", "picture", "feature", "ground", 0.2)),
    ("S", "S4", lambda f: marked(f, "untrained", "said", "feature", "noun", 0.9)),
    ("S", "S5, letters in a caption", lambda f: marked(f, "untrained", "caption", "feature", "letter", 0.1)),
    ("S", "S6", lambda f: caption(f, "edits", "ground, picture", "ablated", "target", 0.9)),
    ("S", "S7, ground features swapped", lambda f: caption(f, "edits", "ground, picture", "swapped x 1", "wanted", 0.1)),
    ("S", "S7, and anything", lambda f: caption(f, "edits", "ground, picture", "swapped x 1", "others", 0.3)),
    ("S", "S7, another", lambda f: caption(f, "edits", "ground, picture", "another", "target", 0.3)),
    ("S", "S7, a random", lambda f: caption(f, "edits", "ground, picture", "random", "target", 0.3)),
    ("S", "S8, feature of a noun about to be said swapped", lambda f: caption(f, "edits", "noun, said", "swapped x 1", "target", 0.3)),
    ("S", "S9, difference", lambda f: caption(f, "steering", "noun, said", "states x 1", "wanted", 0.1)),
    ("S", "S9, the means", lambda f: caption(f, "steering", "noun, said", "all features x 1", "wanted", 0.9)),
    ("S", "S9, one", lambda f: caption(f, "steering", "noun, said", "1 features x 1", "wanted", 0.2)),
    ("P", "P1, the lens finds the noun where it is answered, names of T", lambda f: in_states(f, "lens", "question, says", "T", 0.5)),
    ("P", "P2", lambda f: in_states(f, "probe", "caption, name", "T", 0.8)),
    ("P", "P3, a probe", lambda f: in_states(f, "probe", "caption, opens", "D", 0.2)),
    ("P", "P3, the same", lambda f: in_states(f, "probe", "caption, opens", "T", 0.8)),
    ("P", "P4, the noun's state at a name of T", lambda f: each(f, "patched", lambda row: row["T"]["name"].__setitem__(2, 0.6))),
    ("P", "P5", lambda f: each(f, "patched", lambda row: row["T"]["after"].__setitem__(1, 0.3))),
    ("P", "P7, the picture's", lambda f: each(f, "cut", lambda row: row["D"].update({"pictures": 0.85}))),
    ("P", "P7, neither", lambda f: each(f, "cut", lambda row: row["D"].update({"after and pictures": 0.5}))),
    ("P", "P7, no look", lambda f: each(f, "cut", lambda row: row["T"].update({"pictures, the noun after": 0.2}))),
    ("P", "P6, the best back-patch: right pictures above no", lambda f: each(f, "back", lambda row: row["best"].update(others=0.6))),
    ("P", "P6, the best back-patch: right pictures above another", lambda f: each(f, "back", lambda row: row["best"].update(another=0.6)))])
def test_a_claim_can_fail(table, claim, change):
    rows, verdicts = TABLES[table]
    found = rows()
    change(found)
    said = {text.split()[0] for name, text in verdicts(found).items() if name.startswith(claim)}
    assert said == {"fails"}, said


def test_everything_is_shown(capsys):
    found = sae_rows()
    for family in ("noun", "ground"):
        inside_studies.predicting(found, family)
    inside_studies.features(found)
    inside_studies.edits(found)
    inside_studies.steering(found)
    found = hop_rows()
    inside_studies.hops(found)
    inside_studies.hops(found, "lens")
    inside_studies.replaced(found)
    inside_studies.back_patched(found)
    inside_studies.cut_off(found)
    said = capsys.readouterr().out
    for word in ("held-out combinations", "Variance explained", "taken out", "swapped", "states themselves", "Left of the line", "after block 2",
                 "“a ...”, after 2 blocks", "may not look"):
        assert word in said
