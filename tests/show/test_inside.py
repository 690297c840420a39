"""Chapter 13 shown: verdicts follow from the rows, and each can come out otherwise; a token's card and its buttons."""
import copy

import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.assistant import load
from mmcourse.experiments.aligned import described, one_kind
from mmcourse.files import results
from mmcourse.show import inside
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import BACKGROUNDS

SEEDS = inside.SEEDS


@pytest.fixture
def gate():
    return copy.deepcopy(results("ch13_gate"))


@pytest.fixture
def probed():
    return copy.deepcopy(results("ch13_probes"))


@pytest.fixture
def concepts():
    return copy.deepcopy(results("ch13_concept"))


def verdict(verdicts, start):
    (found,) = [text for claim, text in verdicts.items() if claim.startswith(start)]
    return found.split()[0]


def every(found, *path):
    """The rows of all seeds at a place whose seed is the second step."""
    rows = [found[path[0]][seed] for seed in SEEDS]
    for step in path[1:]:
        rows = [row[step] for row in rows]
    return rows


def test_the_gate_would_be_seen(gate):
    for row in every(gate, "cut", "</image>"):
        row["noun"] = 0.5
    for row in every(gate, "cut", "all but </image>"):
        row["noun"] = 0.9
    for row in every(gate, "cut", "<image>"):
        row.update(gate["cut"]["0"]["nothing"])
    for row in every(gate, "single"):
        row["noun"][20] = 0.2
    verdicts = inside.gate_verdicts(gate)
    assert verdict(verdicts, "G1, without </image>: noun") == "fails" == verdict(verdicts, "G1, </image> alone: noun")
    assert verdict(verdicts, "G2") == "fails" == verdict(verdicts, "G3")


def test_patches_and_drawing_could_have_come_out_otherwise(gate):
    for row in every(gate, "patched", "blocks.0"):
        row["picture"]["noun"], row["at the noun"]["noun"] = 0.95, 0.02
    for row in every(gate, "patched", "blocks.2"):
        row["picture"]["ground"] = 0.1
    for row in gate["drawing"].values():
        row["</text> and <image>"] = 3 * row["nothing"]
        row["the caption's words"] = 1.1 * row["nothing"]
    verdicts = inside.gate_verdicts(gate)
    assert {verdict(verdicts, start) for start in ("G4, thing follows the picture", "G4, thing follows the place", "G4, ground", "G7, d", "G7, a")} == {
        "fails"}


def test_small_nets_could_need_the_gate(gate):
    for i, seed in enumerate(SEEDS):
        gate["small"]["without </image>"][seed]["cut"]["nothing"]["noun"] = 0.2 + 0.01 * i
        gate["small"]["plain"][seed]["cut"]["nothing"]["noun"] = 0.99
        only, plain = gate["small"]["only </image>"][seed], gate["small"]["plain"][seed]
        only["curve"] = copy.deepcopy(plain["curve"])
        only["cut"]["</image>"]["noun"] = 0.8 + 0.01 * i
    verdicts = inside.gate_verdicts(gate)
    assert {verdict(verdicts, "G5"), verdict(verdicts, "G6, only"), verdict(verdicts, "G6, and")} == {"fails"}
    assert inside.first_step({"curve": [[25, {"noun": 0.2}], [50, {"noun": 0.95}]]}) == 50
    assert inside.first_step({"curve": [[25, {"noun": 0.2}]]}) == float("inf")


def test_probes_could_have_found_the_opposite(probed):
    for seed in SEEDS:
        for model in ("shipped", "untrained"):
            right = probed["pictures"][model][seed]["right"]
            for place in right:
                right[place] = {factor: [0.5 + 0.001 * int(seed)] * 4 for factor in right[place]}
        probed["bag"][seed] = dict.fromkeys(probed["bag"][seed], 0.2)
        probed["pictures"]["shipped"][seed]["control"]["before the thing"]["thing"] = [0.4 + 0.001 * int(seed)] * 4
        probed["pictures"]["shipped"][seed]["control"]["mean of the picture"]["thing"] = [0.0] * 4
        for model, word, voice in (("shipped", 0.3, 0.9), ("untrained", 0.3, 0.1), ("bag", 0.2, 0.1)):
            probed["sounds"][model][seed] = {"word": [word + 0.001 * int(seed)] * 4, "voice": [voice + 0.001 * int(seed)] * 4}
    verdicts = inside.probe_verdicts(probed)
    assert len(verdicts) == 12 and {text.split()[0] for text in verdicts.values()} == {"fails"}


def test_concepts_could_have_been_apart(concepts):
    for seed in SEEDS:
        found = concepts["retrieval"]["shipped"][seed]
        found["image finds text"], found["audio finds text"], found["image finds audio"] = [9] * 7, [2] * 7, [8] * 7
        for ground in BACKGROUNDS:
            rows = {source: concepts["steering"][source][seed][ground] for source in concepts["steering"]}
            for source, count in (("picture", 20), ("caption", 1), ("speech", 30), ("random", 9)):
                rows[source]["ground"] = count
            rows["picture"]["thing"], rows["none"]["thing"] = 3, 32
    verdicts = inside.concept_verdicts(concepts)
    assert len(verdicts) == 9 and {text.split()[0] for text in verdicts.values()} == {"fails"}


def test_all_is_shown(gate, probed, concepts, capsys):
    inside.gate(gate)
    inside.singles(gate)
    inside.small_nets(gate)
    inside.probes(probed, "</image>")
    inside.selectivity(probed)
    inside.found_words(concepts)
    inside.steering(concepts)
    inside.heat(np.eye(2), ["a", "b"], ["0", "1"], "a table")
    inside.looks(torch.rand(3, 64, 64), {"head 0": torch.rand(64)}, "looks")
    said = capsys.readouterr().out
    assert "shuffled pictures" in said and "only </image>" in said and "selectivity" in said and "a table" in said


def test_a_card_and_its_buttons(capsys):
    a = load()
    scene = one_kind(np.random.default_rng(0), 1, "validation", sign=True)[0]
    row = described(checkpoints.load("bpe"), a.vqvae, a.vocabulary, [scene]).ids[0]
    box = inside.click(a, row, draw_batch([scene])[0])
    inside.token_card(a, row, 70, draw_batch([scene])[0])
    said = capsys.readouterr().out
    assert "where it looks" in said and "says next" in said
    grid, words = box.children[0].children
    assert len(grid.children) == 64 and len(words.children) == len(row) - 64
    grid.children[5].click()
    assert "Token 6," in capsys.readouterr().out
    words.children[2].click()
    assert "Token 66, '<text>'" in capsys.readouterr().out
    inside.token_card(a, row, len(row) - 1, draw_batch([scene])[0])
    assert "no word comes after it" in capsys.readouterr().out
