"""The nets that learn from examples: four in one file, each the one of seed 0 that the study measures."""
import inspect
from functools import partial

import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse import recipes as all_recipes
from mmcourse.experiments import learners as tasks
from mmcourse.experiments.episodes import forced, rules
from mmcourse.experiments.learners import Learners
from mmcourse.experiments.thing_tokens import ThingTokens
from mmcourse.experiments.voices import SpokenWords, pitch_error, spoken, to_sound
from mmcourse.in_context import EpisodeNet
from mmcourse.recipes import learners
from mmcourse.studies import ch10_context


@pytest.fixture(scope="module")
def tables():
    return ThingTokens(checkpoints.load("glyph_vqvae"), 64, 24), SpokenWords((4, 3, 3), (10, 4, 4), progress=False)


@pytest.fixture
def here(monkeypatch, tmp_path, tables):
    """Runs go to a folder of the test; tables and measures are small."""
    monkeypatch.setattr(all_recipes, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(learners, "things", lambda: tables[0])
    monkeypatch.setattr(learners, "voices", lambda: tables[1])
    monkeypatch.setattr(learners, "measure", partial(learners.measure, n=8, said=4))
    monkeypatch.setattr(tasks, "BATCH", 4)
    return tmp_path


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_recipe_ships_four_nets_that_are_what_learn_gives(here, tables, capsys):
    learners.main(["--steps", "2"], here)
    nets, entry = checkpoints.load("learners", here), checkpoints.manifest(here)["learners"]
    assert list(nets.nets) == list(learners.STEPS) == ["forced", "binding", "sign", "voice"]
    assert entry["steps"] == 8 and entry["seed"] == 0 and entry["steps_of_each"] == dict.fromkeys(learners.STEPS, 2)
    assert entry["tokenizers"] == {name: checkpoints.identity(name) for name in ("glyph_vqvae", "codec")}
    for name in learners.STEPS:
        net, _ = tasks.learn(learners.task(name, 2), 0)
        assert same(nets[name], net.half().float()) and nets[name].config == net.config and not nets[name].training
    assert entry["metrics"] == learners.measure(nets), "measured as they are in the file"
    assert "voice: 2 steps, loss" in capsys.readouterr().out


def test_a_net_that_is_trained_is_not_trained_again_but_one_that_was_stopped_goes_on(here, monkeypatch):
    learn, calls = learners.learn, []

    def stopped(task, seed, **run):
        calls.append(run["resume"])
        net, history = learn(task, seed, **run, until=1 if len(calls) == 2 else None)
        history.interrupted = len(calls) == 2
        return net, history
    monkeypatch.setattr(learners, "learn", stopped)
    with pytest.raises(KeyboardInterrupt):
        learners.main(["--steps", "3"], here)
    assert len(calls) == 2 and not (here / "manifest.json").exists(), "half of them are not shipped"
    steps = []
    monkeypatch.setattr(learners, "learn", lambda task, seed, **run: learn(
        task, seed, after_step=lambda net, step: steps.append(step), **run))
    learners.main(["--steps", "3"], here)
    assert steps == [1, 2] + [0, 1, 2] * 2, "none of forced, the rest of binding, all of the others"
    again, _ = learn(learners.task("binding", 3), 0)
    assert same(checkpoints.load("learners", here)["binding"], again.half().float())
    assert len({*calls}) == 2, "each has a file of its own"
    steps.clear()
    learners.main(["--steps", "3", "--fresh"], here)
    assert steps == [0, 1, 2] * 4


def test_they_are_the_nets_of_the_study(monkeypatch, tables):
    """The same tasks (told by their first nets, batches and losses), and the plan's steps."""
    plan = ch10_context.Plan()
    study = {"forced": ch10_context.forced_task(tables[0], plan.forced, *ch10_context.NETS["two layers"]),
             "binding": ch10_context.binding_task(tables[0], plan.binding, echo=ch10_context.BINDERS["with echo"]),
             "sign": ch10_context.rule_task(tables[0], ch10_context.RULED["sign"][0], plan.rules // 3,
                                            **ch10_context.RULED["sign"][1]),
             "voice": ch10_context.voice_task(tables[1], plan.voices)}
    assert ch10_context.RULED["sign"][0] in ch10_context.EASY, "so it has a third of the steps"
    monkeypatch.setattr(learners, "things", lambda: tables[0])
    monkeypatch.setattr(learners, "voices", lambda: tables[1])
    for name, theirs in study.items():
        mine = learners.task(name, learners.STEPS[name])
        assert mine.steps == theirs.steps
        losses = []
        for task in (mine, theirs):
            torch.manual_seed(1)
            net = task.make().eval()
            losses.append(task.loss(net, *task.batch(np.random.default_rng(2))).item())
        assert losses[0] == losses[1], name


def test_the_tables_are_as_large_as_the_study_has_them():
    size = ch10_context.Plan().size
    things, voices = (inspect.signature(made).parameters for made in (ThingTokens, SpokenWords))
    assert (things["train"].default, things["held_out"].default) == (size.train, size.held_out)
    assert (voices["voices"].default, voices["words"].default) == (size.voices, size.words)


# ---------------------------------------------------------------- what is measured

class Knows(EpisodeNet):
    """Looks up the answer that a net can only learn: the true right half of the query (as logits), or half of the times."""

    def __init__(self, truth, every=1, **config):
        super().__init__(**config)
        self.truth, self.every = truth, every

    def forward(self, *parts):
        (_, (kind, x)), = parts
        if x.dtype.is_floating_point:
            return [self.truth(x)]
        x = x[..., 0] if kind == "words" else x
        off = (torch.arange(len(x)) % self.every > 0).long().view(-1, *[1] * (x.ndim - 1))
        return [torch.nn.functional.one_hot((x + off) % 512, 512).float()]


def test_measures_of_nets_that_know_all_or_a_half(here, tables):
    nets = {name: Knows(lambda x: x, **learners.task(name, 1).make().config) for name in learners.STEPS}
    found = learners.measure(nets, n=12, said=6)
    assert [found[f"{name}_right"] for name in ("forced", "binding", "sign", "sign_held_out")] == [1, 1, 1, 1]
    assert found["voice_cents_k0"] == found["voice_cents_k1"] < 100, "what the codec takes"
    for net in nets.values():
        net.every = 2
    found = learners.measure(nets, n=12, said=4)
    assert [found[f"{name}_right"] for name in ("forced", "binding", "sign", "sign_held_out")] == [.5] * 4


def test_the_pitch_of_the_same_words_is_measured_without_an_example_and_after_one(here, tables):
    """A net that repeats the example, and is silent without one: by hand, sound by sound."""
    voices, asked = tables[1], []

    def says(sounds):
        asked.append(sounds)
        return torch.cat([sounds[:, :1], sounds[:, :-1]], 1) if sounds.shape[1] > 1 else torch.zeros_like(sounds)
    nets = {"voice": Knows(says, **learners.task("voice", 1).make().config)}
    found = learners.pitch_cents(nets, np.random.default_rng(7), 5)
    assert [x.shape[1] for x in asked] == [1, 2] and torch.equal(asked[0][:, -1], asked[1][:, -1])
    episode = spoken(voices, np.random.default_rng(7), 5, 1, "validation")
    errors = [pitch_error(to_sound(voices, episode.sounds[i, 0]), voices.pitch[episode.voices[i, 1], episode.said[i, 1]])
              for i in range(5)]
    known = [min(error, 9999) for error in errors if error == error]
    assert found["voice_cents_k1"] == pytest.approx(np.median(known), abs=0.06)
    assert found["voice_cents_k0"] == learners.NO_PITCH, "silence has no pitch"


# ---------------------------------------------------------------- the container

def test_learners_are_rebuilt_from_their_config_and_names_what_it_has():
    torch.manual_seed(3)
    nets = {"a": EpisodeNet(5, (4, 8), width=16, layers=1), "b": EpisodeNet(3, (2, 4), sound=True, width=8, heads=1)}
    made = Learners.of(nets)
    assert made.config == {name: net.config for name, net in nets.items()}
    assert all(same(made[name], net) and made[name] is not net for name, net in nets.items())
    again = Learners(**made.config)
    again.load_state_dict(made.state_dict())
    assert same(made, again) and checkpoints.class_of("Learners", "here") is Learners
    with pytest.raises(KeyError, match="no net 'c' here: take one of a, b"):
        made["c"]


def test_measures_are_of_validation(here, tables, monkeypatch):
    """No glyph of training or of the test is asked about (what a sign adds may be of training)."""
    seen = []
    for name, make in (("forced", forced), ("binding", learners.binding), ("rules", rules), ("spoken", spoken)):
        def noted(*args, make=make, **options):
            seen.append(options.get("split") or args[-1])
            return make(*args, **options)
        monkeypatch.setattr(learners, name, noted)
    learners.measure({name: learners.task(name, 1).make().eval() for name in learners.STEPS}, n=4, said=2)
    assert seen == ["validation"] * 5
