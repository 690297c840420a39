"""Recipes in two processes: what comes out is what one process makes, and one of them writes it."""
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from mmcourse.cli import ROOT
from mmcourse.experiments.processes import launch

# What makes the recipes small: little data, no judges. In all but the last training both processes go on.
SMALL = """
import functools
import numpy as np, torch
from mmcourse import checkpoints
from mmcourse.codec import AudioCodec
from mmcourse.recipes import codec, decoder, rank_0_goes_on, transformer, vqvae
from mmcourse.recipes.transformer import Part, Stage

class Sound:
    def __init__(self, batch, humans):
        self.batch = batch
    def __call__(self, rng):
        return torch.from_numpy(rng.normal(0, 0.1, (8, 1280)).astype(np.float32)), torch.from_numpy(rng.integers(1, 5, 8))

vqvae.BATCH, vqvae.measures = 4, lambda model: {}
codec.CodecBatches, codec.measure = Sound, lambda model: {}
codec.AudioCodec = lambda width: AudioCodec(bands=16, width=16, dim=8, codebook_size=16, warmup=1)
decoder.measure_decoders = lambda *args: {}
stages = Stage(1, {"text->image": 5, "image->text": 3}), Stage(3, {"text->image": 3, "image->text": 4})
transformer.PARTS = Part("first", stages), Part("second", stages[:1])
transformer.make_mixture = functools.partial(transformer.make_mixture, 24)
made = {}
save = checkpoints.save
def keep(name, model, **more):
    made[name] = save(name, model, **more)
    return made[name]
checkpoints.save = keep
for recipe in (vqvae, codec, decoder, transformer):
    recipe.rank_0_goes_on = rank_0_goes_on if recipe is transformer else lambda: None
for recipe, steps in ((vqvae, 1), (codec, 3), (decoder, 1), (transformer, 4)):
    recipe.main(["--steps", str(steps), "--fresh"], FOLDER)
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folders of what one process made, and two."""
    found = []
    for n in (1, 2):
        folder = tmp_path_factory.mktemp(f"by{n}")
        printed = launch(f"from mmcourse.distributed import rank, join\njoin()\nFOLDER = {str(folder)!r} + '/' + str(rank())\n" + SMALL, n, 240)
        found.append((folder / "0", printed, folder))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name, atol", [("vqvae", 1e-2), ("codec", 1e-2), ("transformer", 3e-2)])
def test_two_processes_make_what_one_makes(both, name, atol):
    """A few steps of Muon at large rates: small differences grow, but they stay small beside the steps."""
    one, two = (load_file(folder / f"{name}.safetensors") for folder, *_ in both)
    assert one.keys() == two.keys()
    for key, x in one.items():
        scale = float(x.float().abs().max()) + 1e-3
        close = (x.float() - two[key].float()).abs() < atol * scale
        assert close.float().mean() > 0.97, (key, (x.float() - two[key].float()).abs().max(), scale)


@pytest.mark.slow
def test_what_two_processes_say_and_write(both):
    (_, alone, _), (made, printed, folder) = both
    assert "training on" not in alone and printed.count("training on cpu, 2 processes\n") == 4
    for file in ("vqvae", "codec", "decoder", "transformer"):
        assert printed.count(f"-> {made / file}.safetensors") == 1
    entries = json.loads((made / "manifest.json").read_text())
    assert {entry["device"] for entry in entries.values()} == {"cpu, 2 processes"} and len(entries) == 4
    assert not (folder / "1" / "transformer.safetensors").exists(), "the second process has left before that"


@pytest.mark.slow
def test_as_a_user_starts_it(tmp_path):
    """The command line itself; a resumed run of two processes goes on in one."""
    environment = {**os.environ, "MMCOURSE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def run(*argv):
        return subprocess.run([sys.executable, *argv], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    done = run(*torchrun, "-m", "mmcourse", "train", "vqvae", "--steps", "2", "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training on cpu, 2 processes\n") == 1 and done.stdout.count(" -> ") == 1
    assert len([line for line in done.stderr.split("\r") if "2/2" in line]) >= 1
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["manifest.json", "vqvae.safetensors"]
    again = run("-m", "mmcourse", "train", "vqvae", "--steps", "2", "--out", str(tmp_path / "one"))
    assert "nothing to train" in again.stdout and "made with device cpu, 2 processes; from here on: device cpu" in again.stdout
    two, one = (load_file(tmp_path / name / "vqvae.safetensors") for name in ("two", "one"))
    assert all(torch.equal(x, one[name]) for name, x in two.items())
    refused = run(*torchrun, "-m", "mmcourse", "train", "bpe")
    assert refused.returncode and "this is trained in one process, and torchrun started 2: leave torchrun out" in refused.stderr
