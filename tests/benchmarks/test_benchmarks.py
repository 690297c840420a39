"""The benchmarks are run by hand; here they are imported, and their parts are run on something small."""
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcourse import checkpoints, files
from mmcourse.files import results

HERE = Path(__file__).parent
SCRIPTS = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("test_") and path.stem != "common")


@pytest.fixture
def script(monkeypatch):
    """`script(name)`: a benchmark as a module, as `python tests/benchmarks/NAME.py` would run it."""
    monkeypatch.syspath_prepend(str(HERE))
    names = ("common", *SCRIPTS)
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(before)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_says_which_file_it_writes(script, name):
    module = script(name)
    assert callable(module.main) and f"python tests/benchmarks/{name}.py" in module.__doc__
    file = module.__doc__.split("data/results/")[1].split(".json")[0]
    assert f'"{file}' in Path(module.__file__).read_text("utf-8").split('"""', 2)[2]


def test_whoever_is_compared_takes_turns_and_the_fastest_counts(script, monkeypatch):
    common, seen = script("common"), []
    times = {"a": iter([9.0, 2.0, 3.0]), "b": iter([8.0, 7.0, 5.0])}
    monkeypatch.setattr(common, "spent", lambda job: job())
    jobs = {name: lambda name=name: seen.append(name) or next(times[name]) for name in times}
    assert common.fastest(jobs, rounds=2) == {"a": 2.0, "b": 5.0} and seen == list("ababab")
    assert common.spent.__name__ == "<lambda>"


def test_a_benchmark_ends_with_its_verdicts(script, monkeypatch, tmp_path, capsys):
    common = script("common")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    common.conclude("ch99_benchmark", {"python": "3"}, {"as fast": True, "as small": False})
    assert capsys.readouterr().out.split("\n")[:2] == ["met    as fast", "MISSED as small"]
    assert files.read_json(tmp_path / "ch99_benchmark.json") == {"python": "3", "met": {"as fast": True, "as small": False}}


def test_bpe_the_plain_way_is_the_courses_tokenizer(script):
    bpe = script("bpe")
    text = bpe.english(3000)
    ours, plain = bpe.BPETokenizer.train(text, 276), bpe.plain_train(text, 20)
    tokens = [bytes([i]) for i in range(256)]
    for a, b in plain:
        tokens.append(tokens[a] + tokens[b])
    assert len(text) == 3000 and tokens[256:264] == list(ours.tokens[256:264])       # then ties are broken differently
    merges = {tuple(map(ord, pair)): 256 + i for i, pair in enumerate(ours.merges)}
    assert bpe.plain_encode(text[:500], merges) == ours.encode(text[:500])
    assert len(bpe.seconds(lambda: None, lambda: None, repeat=2)) == 2


def test_vq_the_peer_has_the_face_of_ours(script):
    pytest.importorskip("vector_quantize_pytorch")
    vq = script("vq")
    torch.manual_seed(0)
    x = torch.randn(64, 8, requires_grad=True)
    jobs = {"ours": vq.VectorQuantizer(16, 8).train(), "peer": vq.matched(16, 8, 64).train()}
    found = vq.ratios(vq.seconds(jobs, x, rounds=1))
    assert set(found) == {"ours, ms", "peer, ms", "peer / ours"}
    assert vq.sweep.Tokenizer(vq.matched(16, 16, 64), 16, width=16)(torch.rand(1, 3, 64, 64))[1].shape == (1, 8, 8)


def test_the_stored_verdicts_are_those_of_the_stored_rows(script):
    for name, script_name in (("ch04_peers", "codec"), ("ch05_benchmark", "transformer")):
        found = results(name)
        verdicts = script(script_name).verdicts(found["sets"] if name == "ch04_peers" else found)
        assert verdicts == found["met"], name


def test_codec_words_are_joined_on_whole_frames(script):
    codec = script("codec")
    clips = [np.full(n, 0.5, np.float32) for n in (700, 300, 500, 900, 100) * 2]
    sounds = codec.join(clips, list("abcdefghij"))
    assert len(sounds.parts) == 2 and all(p.start % 320 == p.stop % 320 == 0 for p in sounds.parts)
    assert [word for *_, word in sounds.words] == list("abcdefghij")
    assert all((sounds.samples[a:b] == 0.5).all() and b - a == len(c) for (a, b, _), c in zip(sounds.words, clips))


def test_codec_through_ours_has_the_bits_of_its_tokens(script):
    codec, shipped = script("codec"), checkpoints.load("codec")
    rng = np.random.default_rng(0)
    sounds = codec.join([rng.normal(0, 0.1, 1000).astype(np.float32) for _ in range(5)], ["x"] * 5)
    out = codec.through_ours(shipped, sounds, (1, 4))
    frames = len(sounds.samples) // 320
    assert {name: bits for name, (_, bits, _) in out.items()} == {"1 level": frames * 9, "4 levels": frames * 36,
                                                                  "log-mel, no tokens": None}
    assert all(len(sound) == len(sounds.samples) for sound, *_ in out.values())


def test_transformer_the_cache_writes_the_same_tokens(script):
    transformer = script("transformer")
    torch.manual_seed(0)
    model = transformer.Transformer(transformer.REAL.size, 16, 1, 2, transformer.CONTEXT, tuple(transformer.OPEN.values()))
    assert torch.equal(*(transformer.greedy(model, 2, cached, tokens=5) for cached in (True, False)))
    assert transformer.peer_loss(transformer.Peer(50, 16, 1, 2, 8), torch.randint(50, (2, 9))).isfinite()


def test_decoder_the_loss_is_the_chapters(script):
    decoder = script("decoder")
    net = decoder.models(16)["ours"]()
    data = decoder.make_batch(checkpoints.load("vqvae"), 2)(np.random.default_rng(0))
    assert set(decoder.seconds({"ours": net}, data, True, 1)) == {"ours"} and net.conv_out[-1].weight.grad is not None
