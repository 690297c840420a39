"""Recipes: one for each shipped checkpoint; each trains, goes on where it was stopped, and ships into a folder."""
import ast
import importlib
import inspect
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmcourse import __main__ as cli
from mmcourse import checkpoints
from mmcourse import recipes as all_recipes
from mmcourse.cli.train import recipes
from mmcourse.codec import AudioCodec
from mmcourse.dataset import Clips, Mixture, training_edits
from mmcourse.diffusion import FlowDecoder, decoder_loss
from mmcourse.paths import CHECKPOINTS
from mmcourse.recipes import bpe as bpe_recipe
from mmcourse.recipes import codec as codec_recipe
from mmcourse.recipes import (
    decoder,
    decoder128,
    options,
    picture_judge,
    sound_decoder,
    transformer,
    vqvae,
    word_judge,
)
from mmcourse.recipes.transformer import make_model
from mmcourse.training import History
from mmcourse.vocabulary import Vocabulary
from mmcourse.vqvae import VQVAE
from mmcourse.world.scene import sample_scene
from tests.helpers import Letters


def test_there_is_one_recipe_for_each_checkpoint_and_nothing_else():
    assert set(recipes()) == set(checkpoints.manifest())


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_answers_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", name, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and f"mmcourse train {name}" in said and "--seed" in said and "--threads" in said
    assert ("--steps" in said) == (name != "bpe")
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", name, "--nonsense"])
    assert ended.value.code == 2


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_asks_a_judge_only_to_report(name):
    """What is imported from the judges is trained here, or used by `measure` and `main` alone, never by a loss or a batch."""
    module = importlib.import_module(f"mmcourse.recipes.{name}")
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    from_judges = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                   and (node.module or "").startswith("mmcourse.judges.metrics") for alias in node.names}
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)):
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)} & from_judges
        assert not used or function.name in ("measure", "main"), (function.name, used)
    assert not any("studies" in (node.module or "") for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))


def test_options(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    usual = {"threads": 1, "fresh": False, "out": None, "ship": False, "device": "cpu", "bf16": False, "compile": False}
    assert vars(options("x", None, 7)) == {"steps": 7, "seed": 0, **usual}
    assert vars(options("x", ["--seed", "2"], None)) == {"seed": 2, **usual}
    for wrong in (["--steps", "0"], ["--threads", "-1"], ["--ship", "--out", "x"]):
        with pytest.raises(SystemExit):
            options("x", wrong, 7)


# ---- a few steps of each

@pytest.fixture
def here(monkeypatch, tmp_path):
    """Runs and checkpoints go to folders of the test; what a judge reports is made short."""
    monkeypatch.setattr(all_recipes, "cache_dir", lambda: tmp_path)
    return tmp_path


def shipped(folder, name: str, steps: int) -> torch.nn.Module:
    entry = checkpoints.manifest(folder)[name]
    assert entry["steps"] == steps and entry["seed"] == 0 and entry["cpu_minutes"] >= 0
    return checkpoints.load(name, folder)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_text_vocabulary(here):
    tokenizer = bpe_recipe.main([], here)
    assert checkpoints.load("bpe", here).merges == tokenizer.merges and tokenizer.vocab_size == bpe_recipe.VOCAB_SIZE
    entry = checkpoints.manifest(here)["bpe"]
    assert entry["model"] == "BPETokenizer" and entry["steps"] == len(tokenizer.merges)


@pytest.mark.parametrize("module, name, measures", [
    (vqvae, "vqvae", "measures"), (picture_judge, "picture_judge", "measure"), (word_judge, "word_judge", "measure"),
    (codec_recipe, "codec", "measure")])
def test_what_needs_no_other_model(here, monkeypatch, module, name, measures):
    """Two steps, shipped with what the judge said; the same again is the same."""
    monkeypatch.setattr(module, measures, lambda model: {"score": 0.5})
    monkeypatch.setattr(module, "BATCH", 2)
    module.main(["--steps", "2"], here)
    first = shipped(here, name, 2)
    assert checkpoints.manifest(here)[name]["metrics"] == {"score": 0.5}
    module.main(["--steps", "2"], here)
    assert same(first, shipped(here, name, 2))


def test_the_diffusion_decoder(here, monkeypatch):
    monkeypatch.setattr(decoder, "measure_decoders", lambda vqvae, model, net: {"score": len(net.config)})
    make = decoder.make_batch
    monkeypatch.setattr(decoder, "make_batch", lambda vqvae: make(vqvae, batch=2))
    decoder.main(["--steps", "2"], here)
    first = shipped(here, "decoder", 2)
    assert checkpoints.manifest(here)["decoder"]["vqvae"] == checkpoints.identity("vqvae")
    decoder.main(["--steps", "2"], here)
    assert same(first, shipped(here, "decoder", 2))


def test_the_large_diffusion_decoder(here, monkeypatch):
    make = decoder128.make_batch
    monkeypatch.setattr(decoder128, "BATCH", 2)
    monkeypatch.setattr(decoder128, "make_batch", lambda vqvae: make(vqvae, pool=4))
    decoder128.main(["--steps", "1"], here)
    model = shipped(here, "decoder128", 1)
    assert model.scale == 2 and checkpoints.manifest(here)["decoder128"]["vqvae"] == checkpoints.identity("vqvae")


def test_a_sound_decoder_that_was_interrupted_is_not_shipped(here, monkeypatch):
    monkeypatch.setattr(sound_decoder, "train", lambda *args, **more: History(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        sound_decoder.main(["--steps", "2"], here)
    assert not checkpoints.manifest(here)


# ---- where a run is kept, what ships it, what ends it

@pytest.fixture
def quick(here, monkeypatch):
    """The image tokenizer's recipe with batches of two, and a data/checkpoints of the test's own."""
    monkeypatch.setattr(vqvae, "measures", lambda model: {"score": 0.5})
    monkeypatch.setattr(vqvae, "BATCH", 2)
    shipped = here / "shipped"
    shipped.mkdir()
    for path in CHECKPOINTS.glob("*"):
        (shipped / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(all_recipes, "CHECKPOINTS", shipped)
    return here


def test_a_recipe_trains_into_the_folder_of_its_run_and_ships_when_asked(quick, capsys):
    before = checkpoints.manifest(quick / "shipped")
    vqvae.main(["--steps", "2"])
    (folder,) = (quick / "runs").iterdir()
    first, said = shipped(folder, "vqvae", 2), capsys.readouterr().out
    assert f"{folder / 'vqvae.safetensors'}" in said and "the shipped checkpoint is as it was" in said
    assert checkpoints.manifest(quick / "shipped") == before
    vqvae.main(["--steps", "2", "--out", str(quick / "mine")])
    assert same(first, shipped(quick / "mine", "vqvae", 2)) and "nothing to train" in capsys.readouterr().out
    vqvae.main(["--steps", "2", "--ship"])
    assert same(first, shipped(quick / "shipped", "vqvae", 2))
    said = capsys.readouterr().out
    for name in ("decoder", "decoder128", "transformer"):
        assert f"{name} was trained on another vqvae and loads no more: mmcourse train {name} --ship" in said
        with pytest.raises(ValueError, match=f"the {name} was trained on another vqvae"):
            checkpoints.load(name, quick / "shipped")


def test_a_recipe_that_was_changed_begins_a_run_of_its_own(quick, monkeypatch, capsys):
    def said(*more) -> str:
        vqvae.main(["--steps", "2", *more])
        return capsys.readouterr().out
    assert "nothing to train" not in said() and "nothing to train" in said()
    assert "nothing to train" not in said("--fresh"), "begun anew"
    for name, value in (("LR", 1e-3), ("SIGN_WEIGHT", 1.0), ("BATCH", 3)):
        monkeypatch.setattr(vqvae, name, value)
        assert "nothing to train" not in said()
    assert "nothing to train" not in said("--seed", "1")
    real = inspect.getsource(vqvae)
    monkeypatch.setattr(all_recipes.inspect, "getsource", lambda module: real.replace("unnamed=UNNAMED", "unnamed=0"))
    assert "nothing to train" not in said(), "other code"
    monkeypatch.setattr(all_recipes.inspect, "getsource", lambda module: "# a remark\n" + real.replace("unnamed=UNNAMED", "unnamed=0"))
    assert "nothing to train" in said(), "a remark is no other code"
    assert len(list((quick / "runs").iterdir())) == 6


def test_a_part_may_be_added_to_the_transformers_run(monkeypatch, here):
    model, mixture = SimpleNamespace(config={}), SimpleNamespace(people=None)

    def files():
        return [transformer.part_file(n, 0, model, mixture) for n in range(len(transformer.PARTS))]
    before = files()
    monkeypatch.setattr(transformer, "PARTS", (*transformer.PARTS, replace(transformer.PARTS[0], name="more")))
    assert files()[:-1] == before and len(set(files())) == len(before) + 1
    monkeypatch.setattr(transformer, "PARTS", (replace(transformer.PARTS[0], rate=0.5), *transformer.PARTS[1:]))
    assert not set(files()) & set(before)


INTERRUPTED = """
import os, signal, sys
from mmcourse import __main__ as cli
from mmcourse.cli import train as verb
from mmcourse.recipes import picture_judge, vqvae, word_judge
signal.signal(signal.SIGINT, signal.default_int_handler)
real, pressed = vqvae.sample_scene, []
verb.recipes = lambda: ["picture_judge", "vqvae", "word_judge"]

def press(*args, **more):
    if not pressed:
        pressed.append(os.kill(os.getpid(), signal.SIGINT))
    return real(*args, **more)

def press_at_once(rng):
    raise KeyboardInterrupt
picture_judge.sample_scene = vqvae.sample_scene = press
picture_judge.BATCH = vqvae.BATCH = 2
word_judge.WordBatches = lambda **more: press_at_once
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("argv, steps", [(["train", "vqvae"], "step 1 of 4400"), (["train", "all", "--ship"], "step 1 of 3000"),
                                         (["train", "word_judge", "--steps", "9"], "step 0 of 9")])
def test_ctrl_c_ends_with_130_and_trains_nothing_else(tmp_path, argv, steps):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, *argv], capture_output=True, text=True,
                          env={**os.environ, "MMCOURSE_CACHE": str(tmp_path)})
    assert done.returncode == 130, done.stderr[-500:]
    assert f"stopped at {steps}" in done.stdout and done.stderr.strip().endswith("stopped") and done.stdout.count("stopped at") == 1
    assert "Traceback" not in done.stderr


@pytest.fixture
def mixture():
    """A mixture of every direction, of random tokens."""
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, "train") for _ in range(4)]
    nouns = sorted({scene.groups[0].noun for scene in scenes})
    clips = Clips([np.arange(6) for _ in nouns], nouns)
    edits = training_edits(40), rng.integers(64, size=(40, 2, 64))

    def make(stage, part):
        return Mixture(Vocabulary(100, 64, 64, 2), Letters(), scenes, rng.integers(64, size=(4, 64)), clips, stage.rows,
                       stage.text_weight, edits=edits, kinds=stage.kinds, people=clips, people_share=part.people)
    return make


def test_the_transformer_runs_through_its_parts_and_stages(here, monkeypatch, mixture):
    """The real parts at a hundredth of their steps: each stage's rows, each part's own schedule, the weights carried on."""
    parts = tuple(replace(part, schedule=part.schedule // 100, stages=tuple(
        replace(stage, until=max(n, stage.until // 700)) for n, stage in enumerate(part.stages, 1))) for part in transformer.PARTS)
    seen, train = [], transformer.train

    def note(model, batch, loss, *, steps, optim, run):
        data = batch(np.random.default_rng(0))
        seen.append((steps, run.until, round(optim.lr / transformer.LR, 3), run.seed, sum(len(ids) for ids in data[::2])))
        return train(model, batch, loss, steps=steps, optim=optim, run=run)
    monkeypatch.setattr(transformer, "PARTS", parts)
    monkeypatch.setattr(transformer, "make_mixture", mixture)
    monkeypatch.setattr(transformer, "train", note)
    monkeypatch.setattr(transformer, "make_model", lambda vocabulary, seed: tiny_model(vocabulary))
    total = sum(part.steps for part in parts)
    transformer.main(["--steps", str(total)], here)
    stages = [(part, stage) for part in parts for stage in part.stages]
    assert [(steps, until, rate) for steps, until, rate, *_ in seen] == \
        [(part.schedule or part.steps, stage.until, part.rate) for part, stage in stages]
    assert [rows for *_, rows in seen] == [sum(stage.rows.values()) for _, stage in stages]
    assert [seed for *_, seed, _ in seen] == [n for n, part in enumerate(parts) for _ in part.stages]
    entry = checkpoints.manifest(here)["transformer"]
    assert entry["steps"] == total and entry["human_digits"] is True and set(entry["tokenizers"]) == {"bpe", "vqvae", "codec"}
    assert entry["vocabulary"] == Vocabulary(100, 64, 64, 2).config and entry["metrics"]["loss"] > 0
    assert len(list((here / "runs").iterdir())) == len(parts)


def tiny_model(vocabulary: Vocabulary):
    return make_model(vocabulary, 0, width=16, layers=1, heads=2)


def test_the_transformer_stops_early_if_asked(here, monkeypatch, mixture):
    monkeypatch.setattr(transformer, "make_mixture", mixture)
    monkeypatch.setattr(transformer, "make_model", lambda vocabulary, seed: tiny_model(vocabulary))
    history = transformer.main(["--steps", "1"], here)
    assert history.rows[-1]["step"] == 0 and checkpoints.manifest(here)["transformer"]["steps"] == 1


# ---- what they train on

def test_the_log_tells_why_each_part_of_the_reference_run_was_added():
    diary = (CHECKPOINTS / "LOG.md").read_text("utf-8").split("the diary of the reference run, moved from the recipe")[1]
    for part in transformer.PARTS:
        assert f"**{part.name}** ({part.steps:,} steps" in diary
    assert f"{transformer.STEPS:,} steps" in diary and "354.7 CPU minutes" in diary
    assert checkpoints.manifest()["transformer"]["steps"] == transformer.STEPS


def test_batches_depend_on_the_generator_alone():
    vqvae_model = VQVAE(codebook_size=32, dim=16, width=32).eval()
    make = decoder.make_batch(vqvae_model, batch=2)
    a, b, c = (make(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(x, y) for x, y in zip(a, b)) and not torch.equal(a[0], c[0])
    images, plain, codes = a
    assert images.shape == plain.shape == (2, 3, 64, 64) and codes.shape == (2, 16, 8, 8)
    torch.testing.assert_close(plain, vqvae_model.decode(vqvae_model.encode(images)))


def test_the_large_decoder_is_told_what_the_tokenizer_leaves_of_small_pictures():
    model = VQVAE(codebook_size=32, dim=8, width=32).eval()
    images, plain, codes = decoder128.make_batch(model, pool=3)(np.random.default_rng(0))
    assert images.shape == (decoder128.BATCH, 3, 128, 128) and plain.shape[2:] == (64, 64) and codes.shape[1:] == (8, 8, 8)
    pictures, tokens = decoder128.make_pool(model, 3)
    row = next(i for i in range(3) if torch.equal((images[0] * 255).round().byte(), pictures[i]))
    torch.testing.assert_close(plain[:1], model.decode(tokens[row:row + 1]))


def test_the_large_decoder_can_learn_from_the_weights_of_the_small_one():
    large = decoder128.start_from(FlowDecoder(code_dim=8, width=16, depth=1, time=16))
    torch.nn.init.normal_(large.conv_out[-1].weight, std=0.05)
    loss = decoder_loss(large, torch.rand(2, 3, 128, 128), torch.rand(2, 3, 64, 64), torch.randn(2, 8, 8, 8))
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in large.parameters())


def test_the_sound_decoder_learns_from_one_level():
    torch.manual_seed(0)
    codec = AudioCodec(width=16, dim=8, codebook_size=32).eval()
    truth, plain, codes = sound_decoder.make_batch(codec, batch=2)(np.random.default_rng(0))
    assert truth.shape == plain.shape == (2, 64, 96) and codes.shape == (2, 8, 24)
    again = sound_decoder.make_batch(codec, batch=2)(np.random.default_rng(0))
    assert torch.equal(truth, again[0]) and torch.equal(plain, again[1])
    assert not torch.allclose(truth, plain)


def test_each_number_of_levels_is_used_as_often_as_it_says():
    sound, levels = codec_recipe.CodecBatches(batch=64, humans=False)(np.random.default_rng(0))
    shares = torch.bincount(levels, minlength=5)[1:] / 64
    assert (shares - torch.tensor(codec_recipe.LEVEL_SHARES)).abs().max() < 0.2
    loud = sound.square().mean(1).sqrt()
    assert 0.03 < loud.median() < 0.12 and loud.max() < 0.2             # RMS; a row may be silent to its end
