"""Nets learn and answer on a device that is not the CPU, and `train` takes them there and back.

There is no GPU here: the device is pretended (`tests.pretend`), and refuses what a GPU would refuse.
"""
import copy
import importlib
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from mmcourse import checkpoints, optim, rerank, training
from mmcourse.assistant import painted, sounded
from mmcourse.bits import segment_bits
from mmcourse.chat import choose_modality
from mmcourse.codec import AudioCodec, codec_loss
from mmcourse.dataset import image_tokens, mixture_loss, near_codes, speech_tokens
from mmcourse.diffusion import FlowDecoder, decoder_loss, paint_flow
from mmcourse.experiments import byte_patches, exits, learners, routed, shelf_nets
from mmcourse.experiments.budgets import BudgetNet, budget_loss
from mmcourse.experiments.episodes import Labelled, Ruled
from mmcourse.experiments.sparse import SparseAutoencoder, sparse_loss
from mmcourse.experiments.voices import Spoken, distance
from mmcourse.generate import generate
from mmcourse.in_context import EpisodeNet
from mmcourse.judges import PictureReader
from mmcourse.judges.hearing import WordJudge, through_codec
from mmcourse.judges.phrase_listener import PhraseListener
from mmcourse.judges.picture_net import PictureNet, picture_loss
from mmcourse.judges.second_listener import SecondListener
from mmcourse.judges.signs import SignReader, reader_loss
from mmcourse.nested import NestedTokenizer, nested_loss
from mmcourse.optim import Optim
from mmcourse.painters import (
    FlowPainter,
    TokenPainter,
    from_noise_loss,
    in_order_loss,
    masked_loss,
    paint_from_noise,
    paint_in_order,
    paint_surest_first,
    score_from_noise,
    score_in_order,
    score_masked,
)
from mmcourse.parallel import draft_loss
from mmcourse.posttraining import Practice, Question, Task, policy_loss, preference_loss
from mmcourse.quantize import FSQ, k_means
from mmcourse.recipes import phrase_listener, vqvae, word_judge
from mmcourse.recipes._halves import in_two_processes
from mmcourse.sound_decoder import SoundDecoder, sample_mel, sound_decoder_loss
from mmcourse.training import Hardware, Run, train
from mmcourse.transformer import Transformer, next_token_loss
from mmcourse.vocabulary import OPEN, Segment, Vocabulary
from mmcourse.vqvae import VQVAE, vqvae_loss
from mmcourse.world.scene import sample_scene
from tests.pretend import DEVICE, Mixed, There, pretended

VOCABULARY = Vocabulary(20, 16, 8, 2)


def ids(*shape, high=16, low=0):
    return torch.randint(low, high, shape)


def transformer(kind=Transformer, **more):
    return kind(VOCABULARY.size, width=16, layers=2, heads=2, context=160, segment_starts=tuple(OPEN.values()), **more)


def painter(causal=True, kind=TokenPainter, **more):
    return kind(30, 16, prompt=3, places=8, width=16, layers=1, heads=2, **({"causal": causal} if kind is TokenPainter else {}), **more)


def episodes(chunk=(4, 16), **more):
    return EpisodeNet(learners.WORDS, chunk, width=16, layers=1, heads=1, pairs=8, **more)


def rows(weights=True):
    """A batch of sequences with their weights."""
    made = ids(3, 12, high=VOCABULARY.size, low=7)
    made[:, 0] = OPEN["image"]
    return (made, torch.rand(3, 12)) if weights else (made,)


def practising(loss):
    """A loss of posttraining for a transformer: two answers, which count 1 and -1."""
    def batch():
        places = torch.full((2, 12), -1)
        places[:, 5:9] = 2
        return rows()[0][:2], places, torch.tensor([[1.0], [-1.0]]).expand(2, 12), torch.randn(2, 12)

    def with_mask(model, *data):
        return loss(model, *data, allowed=torch.ones(4, VOCABULARY.size, dtype=torch.bool, device=model.device))
    return transformer, batch, with_mask


def patches():
    return torch.rand(2, 9, shelf_nets.DIM)


def known():
    return torch.rand(2, 3) < 0.7


# name -> a fresh net, a batch for it on the CPU, its loss
LOSSES = {
    "vqvae": (lambda: VQVAE(32, 4, 16), lambda: (torch.rand(2, 3, 64, 64),), vqvae_loss),
    "vqvae, as shipped": (lambda: VQVAE(32, 4, 16), lambda: (torch.rand(2, 3, 64, 64),), vqvae.loss),
    "codec": (lambda: AudioCodec(16, 16, 8, 32, warmup=0), lambda: (torch.randn(2, 3200) / 10, torch.tensor([1, 4])), codec_loss),
    "codec, at first": (lambda: AudioCodec(16, 16, 8, 32), lambda: (torch.randn(2, 3200) / 10, torch.tensor([1, 4])), codec_loss),
    "transformer": (transformer, rows, next_token_loss),
    "transformer without weights": (transformer, partial(rows, False), next_token_loss),
    "mixture": (transformer, lambda: (*rows(), *rows()), mixture_loss),
    "policy": practising(policy_loss),
    "preference": practising(preference_loss),
    "decoder": (lambda: FlowDecoder(4, 8, 1, 16), lambda: (torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64), torch.randn(2, 4, 8, 8)),
                decoder_loss),
    "decoder128": (lambda: FlowDecoder(4, 8, 1, 16, scale=2), lambda: (torch.rand(2, 3, 128, 128), torch.rand(2, 3, 64, 64),
                                                                        torch.randn(2, 4, 8, 8)), decoder_loss),
    "sound decoder": (lambda: SoundDecoder(16, 8, 8, 16), lambda: (torch.randn(2, 16, 32), torch.randn(2, 16, 32), torch.randn(2, 8, 8)),
                      sound_decoder_loss),
    "in order": (painter, lambda: (ids(2, 3), ids(2, 8)), in_order_loss),
    "surest first": (partial(painter, False), lambda: (ids(2, 3), ids(2, 8)), masked_loss),
    "from noise": (partial(painter, kind=FlowPainter), lambda: (ids(2, 3), torch.randn(2, 8, 16)), from_noise_loss),
    "drafter": (partial(painter, False), lambda: (ids(2, 3), ids(2, 8)), draft_loss),
    "nested": (lambda: NestedTokenizer(3, width=16, layers=1, heads=2), lambda: (patches(), known()), nested_loss),
    "shelf painter": (lambda: shelf_nets.ShelfPainter(16), lambda: (ids(2, 10), patches(), patches()), shelf_nets.painter_loss),
    "shelf painter, at once": (lambda: shelf_nets.ShelfPainter(16), lambda: (ids(2, 10), patches(), patches()), shelf_nets.plain_loss),
    "labels": (episodes, lambda: (ids(2, 3, 4), ids(2, 3), known()), learners.label_loss),
    "drawings": (episodes, lambda: (ids(2, 3, 2), ids(2, 3, 4), known()), learners.drawing_loss),
    "rules": (episodes, lambda: (ids(2, 3, 4), ids(2, 3, 4)), learners.rule_loss),
    "rules that are said": (episodes, lambda: (ids(2, 3, 4), ids(2, 3, 4), ids(2, 2)), learners.saying_loss),
    "voices": (lambda: episodes((4, 5), sound=True), lambda: (ids(2, 3), torch.rand(2, 3, 4, 5), known()), learners.sounds_loss),
    "picture judge": (lambda: PictureNet(8), lambda: (torch.rand(2, 3, 64, 64), torch.rand(2, 64), torch.rand(2, 64), ids(2, high=8)),
                      picture_loss),
    "sign judge": (lambda: SignReader(8), lambda: (torch.rand(2, 3, 32, 64), ids(2, 8)), reader_loss),
    "word judge": (lambda: WordJudge(width=2), lambda: (torch.randn(2, 8320) / 10, ids(2)), word_judge.word_loss),
    "second listener": (lambda: SecondListener(width=8), lambda: (torch.randn(2, 8320) / 10, ids(2)), word_judge.word_loss),
    "phrase listener": (lambda: PhraseListener([*map(str, range(20))], 8), lambda: (torch.randn(2, 8320) / 10, ids(2, 3, low=1)),
                        phrase_listener.ctc),
    "budgets": (lambda: BudgetNet(width=8), lambda: (patches(), torch.rand(2, 12)), budget_loss),
    "sparse": (lambda: SparseAutoencoder(8, 32, 4, quiet=0), lambda: (torch.rand(6, 8),), sparse_loss),
    "byte patches": (lambda: byte_patches.PatchNet(512, 16, 16, 1, 2), lambda: (ids(2, 20), torch.rand(2, 20) < 0.3),
                     byte_patches.patch_loss),
    **{f"routed, {kind}": (partial(transformer, routed.RoutedTransformer, router=kind, routed=(1,)), rows, next_token_loss)
       for kind in routed.ROUTERS},
}


def cases(table):
    return [pytest.param(*case, id=name) for name, case in table.items()]


def number(result) -> torch.Tensor:
    return result["loss"] if isinstance(result, dict) else result


def gradients(model, loss, data) -> tuple[float, dict]:
    torch.manual_seed(1)
    found = number(loss(model.train(), *data))
    found.backward()
    return found.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make, batch, loss", cases(LOSSES))
def test_a_loss_and_its_gradients_are_those_of_the_cpu(make, batch, loss):
    torch.manual_seed(0)
    model, data = make(), batch()
    other = copy.deepcopy(model)
    expected, theirs = gradients(other, loss, data)
    with pretended():
        found, ours = gradients(model.to(DEVICE), loss, training.to_device(model, data))
        assert found == pytest.approx(expected, rel=1e-4) and ours.keys() == theirs.keys() and ours
        for name, gradient in ours.items():
            assert isinstance(gradient, There)
            torch.testing.assert_close(gradient._numbers, theirs[name], rtol=1e-3, atol=1e-5)
        for name, buffer in model.named_buffers():
            assert isinstance(buffer, There), name                                   # what a step moves beside the weights
            torch.testing.assert_close(buffer._numbers, dict(other.named_buffers())[name], rtol=1e-3, atol=1e-5)


def test_no_shipped_class_is_left_out():
    tried = {type(make()).__name__ for make, *_ in LOSSES.values()}
    parts = {"SignPainters": {"TokenPainter", "FlowPainter"}, "Learners": {"EpisodeNet"},
             "ShelfNets": {"NestedTokenizer", "ShelfPainter", "TokenPainter"}, "BPETokenizer": set()}
    for name in checkpoints.CLASSES:
        assert parts.get(name, {name}) <= tried, name


# ---- answers

def prompts(*kinds):
    return [[Segment(kind, tuple(range(16)) * 4 if kind == "image" else (3, 4, 5, 6))] for kind in kinds]


def vectors():
    return torch.arange(60.0).view(20, 3) % 7


def guess(model, asked=None, **more):
    return generate(model, VOCABULARY, asked or prompts("text", "audio"), **{"seed": 3, "temperature": 1.0, **more})


def drafter(device):
    return TokenPainter(30, 16, causal=False, prompt=6, places=64, width=16, layers=1, heads=2).to(device)


def labelled():
    return Labelled(ids(2, 3, 4), ids(2, 3), ids(2, 3), ids(2, 3), ids(2, 3), known())


def leaving(model):
    net, log = exits.with_exits(model, exits.ExitHeads(16, 2).to(model.device), 0.4)
    net.hidden(rows()[0].to(model.device))
    return torch.stack(log).cpu()


def drafting(net, choose=lambda logits, place: logits.argmax(-1)):
    draft = exits.ShallowDraft(net, rows()[0], choose, 3)
    return draft(torch.full((3, 6), 9), 1)


def practised(model):
    task = Task("parrot", lambda rng, n: [Question(tuple(prompts("text")[0]), "text")] * n, lambda asked, answers: [float(len(a.ids)) for a in answers])
    practice = Practice(model, VOCABULARY, [task], "grpo", prompts=2)
    data = training.to_device(model, practice.batch(np.random.default_rng(0)))
    return practice.loss(model, *data)["loss"].cpu()


VQ, CODEC = partial(VQVAE, 16, 4, 16), partial(AudioCodec, 16, 16, 8, 8, levels=2)
SHELVES = partial(shelf_nets.ShelfNets, 16)
# name -> a net, what is asked of it: tensors of the CPU go in or none, anything comes out, on the CPU or made of Python's own
ANSWERS = {
    "text": (transformer, lambda m: guess(m, want="text")),
    "sound": (transformer, lambda m: guess(m, want="audio", limit=8)),
    "a few pictures": (transformer, lambda m: guess(m, want="image", guidance=1.5)),
    "a drafted picture": (transformer, lambda m: guess(m, want="image", drafter=drafter(m.device), asked=prompts("text"))),
    "pictures one token at a time": (transformer, lambda m: guess(m, want="image", use_cache=False, temperature=0.0)),
    "likelihoods": (transformer, lambda m: rerank.log_likelihood(m, VOCABULARY, prompts("text"), prompts("image")[0])),
    "the kind of an answer": (transformer, lambda m: choose_modality(m, VOCABULARY, prompts("text", "audio"))),
    "bits": (transformer, lambda m: segment_bits(m, VOCABULARY, prompts("text")[0][0])),
    "practice": (transformer, practised),
    "leaving early": (transformer, leaving),
    "a shallow draft": (transformer, drafting),
    "unsureness": (lambda: Transformer(256, 16, 1, 2, 32), lambda m: byte_patches.unsureness(m, ids(2, 9))),
    "pictures there and back": (VQ, lambda m: painted(m, [Segment("image", (3,) * 64)])),
    "pictures to tokens": (VQ, lambda m: image_tokens(m, [sample_scene(np.random.default_rng(0))], None, False)),
    "sounds": (CODEC, lambda m: sounded(m, [Segment("audio", (3, 4) * 5), Segment("audio", (1, 2) * 3)])),
    "sounds to tokens": (CODEC, lambda m: speech_tokens(m, [np.sin(np.arange(900, dtype=np.float32))], 2, False)),
    "codes that sound alike": (CODEC, lambda m: near_codes(m.codebooks)),
    "through the codec": (CODEC, lambda m: through_codec(m, torch.randn(1, 900) / 10, (1, 2))),
    "words heard": (lambda: WordJudge(width=2), lambda m: m.hear(torch.randn(2, 5000) / 10)),
    "phrases heard": (lambda: PhraseListener([*map(str, range(20))], 8), lambda m: m.hear([np.random.default_rng(0).normal(0, 0.1, 5000)])),
    "pictures judged": (lambda: PictureNet(8), lambda m: (m.read(torch.rand(2, 3, 64, 64)), m.features(torch.rand(2, 3, 64, 64)).cpu())),
    "signs read": (lambda: SignReader(8), lambda m: m.read(torch.rand(2, 3, 32, 64))),
    "what it is called": (episodes, lambda m: learners.ask(m, (("words", labelled().labels[..., None]), ("chunk", ids(2, 3, 4))))),
    "what it draws": (episodes, lambda m: learners.drawn(m, replace(labelled(), pictures=ids(2, 3, 4)))),
    "how likely": (episodes, lambda m: learners.told_backwards(m, replace(labelled(), pictures=ids(2, 3, 4)))),
    "a rule said": (episodes, lambda m: learners.said_and_applied(m, Ruled(ids(2, 3, 4), ids(2, 3, 4), None))),
    "a word said": (lambda: episodes((4, 5), sound=True),
                    lambda m: learners.sounded(m, Spoken(ids(2, 3), torch.rand(2, 3, 4, 5), None, None, None))),
}
# ... and what is asked where the net is: its tensors are on the device, and so is the answer
THERE = {
    "diffusion": (lambda: FlowDecoder(4, 8, 1, 16), lambda m, d: paint_flow(m, ids(2, 8, 8).to(d), VQ().to(d), 2)[-1]),
    "heun": (lambda: FlowDecoder(4, 8, 1, 16, scale=2), lambda m, d: m.decode(ids(1, 8, 8).to(d), VQ().to(d), 2, 5, "heun")),
    "diffusion of sound": (lambda: SoundDecoder(16, 8, 8, 16), lambda m, d: sample_mel(m, ids(1, 6, 1, high=8).to(d), CODEC().to(d), 2)),
    "a codebook": (partial(FSQ, (4, 4)), lambda m, d: k_means(vectors().to(d), 4, 3)),
    "in order": (painter, lambda m, d: paint_in_order(m, ids(2, 3).to(d), 1.5, generator=dice())),
    "surest first": (partial(painter, False), lambda m, d: paint_surest_first(m, ids(2, 3).to(d), 2, 1.5, generator=dice())),
    "from noise": (partial(painter, kind=FlowPainter), lambda m, d: paint_from_noise(m, ids(2, 3).to(d), 2, 1.5, dice())),
    "marks in order": (painter, lambda m, d: score_in_order(m, ids(2, 3).to(d), ids(2, 8).to(d))),
    "marks, masked": (partial(painter, False), lambda m, d: score_masked(m, ids(2, 3).to(d), ids(2, 8).to(d), 2)),
    "marks from noise": (partial(painter, kind=FlowPainter),
                         lambda m, d: score_from_noise(m, ids(2, 3).to(d), torch.rand(2, 8, 16).to(d), 2, dice())),
    "nested": (lambda: NestedTokenizer(3, width=16, layers=1, heads=2), lambda m, d: m.decode(m.encode(torch.rand(2, 3, 48, 48).to(d))[:, :2])),
    "shelves": (SHELVES, lambda m, d: m.paint(ids(2, 5).to(d), 2)),
    "sounds apart": (partial(FSQ, (4, 4)), lambda m, d: distance(torch.rand(2, 16, 65).to(d), torch.rand(2, 16, 65).to(d))),
}


def dice():
    return torch.Generator().manual_seed(4)


def here(answer):
    """An answer with its numbers on the CPU."""
    return answer._numbers if isinstance(answer, There) else answer


def equal(a, b) -> bool:
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict):
        return equal(list(a.items()), list(b.items()))
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return type(a) is type(b) and np.allclose(np.asarray(a.detach() if isinstance(a, torch.Tensor) else a), np.asarray(
            b.detach() if isinstance(b, torch.Tensor) else b), rtol=1e-3, atol=1e-4)
    return a == b


def asked(make, ask, *where):
    torch.manual_seed(0)
    model = make().eval()
    model.to(*where)
    torch.manual_seed(2)
    return ask(model, *where)


@pytest.mark.parametrize("make, ask", cases(ANSWERS))
def test_an_answer_is_that_of_the_cpu_and_comes_back_to_it(make, ask):
    expected = asked(make, ask)
    with pretended():
        torch.manual_seed(0)
        model = make().eval().to(DEVICE)
        torch.manual_seed(2)
        assert equal(ask(model), expected)


@pytest.mark.parametrize("make, ask", cases(THERE))
def test_an_answer_where_the_net_is(make, ask):
    expected = asked(make, ask, "cpu")
    with pretended():
        answer = asked(make, ask, DEVICE)
        assert isinstance(answer, There) and equal(here(answer), expected)


def test_the_template_reader_takes_pictures_from_anywhere():
    pictures = torch.rand(2, 3, 64, 64)
    with pretended():
        assert PictureReader().read(pictures.to(DEVICE)) == PictureReader().read(pictures)


# ---- the training goes there and comes back

def net():
    torch.manual_seed(0)
    return FlowPainter(30, 4, prompt=3, places=8, width=16, layers=1, heads=2)


def batch(rng):
    return torch.from_numpy(rng.integers(30, size=(4, 3))), torch.from_numpy(rng.standard_normal((4, 8, 4), dtype=np.float32))


OPTIM = Optim("muon", lr=0.01, ema_decay=0.9, warmup=2)
QUIET = Run(progress=False, log_every=1)


def alike(a, b) -> bool:
    """Not to the last bit: attention takes another way on the CPU."""
    return all(torch.allclose(x, b.state_dict()[name], atol=1e-4) for name, x in a.state_dict().items())


def losses(history):
    return pytest.approx(history.column("loss"), rel=1e-4)


@pytest.fixture
def there(monkeypatch):
    """The pretended device, on which AdamW's fused steps and the file of a run work too."""
    optimizers = importlib.import_module("torch.optim.optimizer")
    supported = optimizers._get_fused_kernels_supported_devices
    monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: [*supported(), DEVICE.type])
    read = training._read_state

    def moved(x):
        return x.to(DEVICE) if isinstance(x, torch.Tensor) else {k: moved(v) for k, v in x.items()} if isinstance(x, dict) \
            else [*map(moved, x)] if isinstance(x, list) else x
    monkeypatch.setattr(training, "_read_state", lambda path, device: moved(read(path, "cpu")) if torch.device(device) == DEVICE
                        else read(path, device))
    with pretended():
        yield Hardware(DEVICE.type)


def learned(hardware, monkeypatch, **run):
    monkeypatch.setattr(Hardware, "now", hardware)
    model, seen = net(), []
    history = train(model, batch, from_noise_loss, steps=6, optim=OPTIM, run=replace(QUIET, **run),
                    after_step=lambda model, step: seen.append(model.head.weight.device.type))
    assert set(seen) <= {hardware.device or "cpu"} and not model.training
    assert {type(x) for x in model.state_dict().values()} == {torch.Tensor}, "it is back on the CPU"
    return model, history


def test_a_training_goes_to_the_device_and_comes_back(there, monkeypatch):
    on_cpu, expected = learned(Hardware(), monkeypatch)
    model, history = learned(there, monkeypatch)
    assert alike(model, on_cpu) and not alike(model, net()) and history.column("loss") == losses(expected)


@pytest.mark.parametrize("first, then", [(None, "meta"), ("meta", None), ("meta", "meta")])
def test_a_run_goes_on_on_another_device(there, monkeypatch, tmp_path, capsys, first, then):
    straight, expected = learned(Hardware(), monkeypatch)
    learned(Hardware(first), monkeypatch, resume=tmp_path / "run.pt", until=3)
    assert "made with" not in capsys.readouterr().out
    model, history = learned(Hardware(then), monkeypatch, resume=tmp_path / "run.pt")
    assert alike(model, straight) and history.column("loss") == losses(expected)
    said = capsys.readouterr().out
    if first == then:
        assert "made with" not in said
    else:
        assert f"run.pt was made with device {first or 'cpu'}; from here on: device {then or 'cpu'}" in said


def test_a_file_of_before_there_were_devices_was_made_on_the_cpu(monkeypatch, tmp_path, capsys):
    called = Hardware.called
    monkeypatch.setattr(Hardware, "called", lambda self, device: None)
    learned(Hardware(), monkeypatch, resume=tmp_path / "run.pt", until=3)
    data = training._read_state(tmp_path / "run.pt", "cpu")
    del data["settings"]["device"]
    monkeypatch.setattr(Hardware, "called", called)
    monkeypatch.setattr(training, "_read_state", lambda path, device: data)
    learned(Hardware(), monkeypatch, resume=tmp_path / "run.pt")
    assert "made with" not in capsys.readouterr().out


def test_an_error_brings_the_model_back_too(there, monkeypatch):
    def broken(model, *data):
        raise RuntimeError("power cut")
    monkeypatch.setattr(Hardware, "now", there)
    model = net()
    with pytest.raises(RuntimeError, match="power cut"):
        train(model, batch, broken, steps=2, run=QUIET)
    assert {type(x) for x in model.state_dict().values()} == {torch.Tensor}


def test_a_model_that_was_put_somewhere_stays_there(there):
    model = net().to(DEVICE)
    train(model, batch, from_noise_loss, steps=2, optim=OPTIM, run=QUIET)
    assert isinstance(model.head.weight, There)


def test_in_bfloat16_is_the_forward_pass_alone(monkeypatch):
    """Not the loss, the weights, the optimizers' state, or what Muon does with matrices."""
    outputs, results, optimizers, products = [], [], [], []
    model, make, step, orthogonalize = net(), training.make_optimizers, training.step, optim.orthogonalize
    model.head.register_forward_hook(lambda layer, given, out: outputs.append(out.dtype))
    monkeypatch.setattr(training, "make_optimizers", lambda *args: optimizers.extend(make(*args)) or optimizers)
    monkeypatch.setattr(training, "step", lambda *args: results.append(step(*args)) or results[-1])
    monkeypatch.setattr(optim, "orthogonalize", lambda matrix: products.append((matrix @ matrix.T).dtype) or orthogonalize(matrix))
    monkeypatch.setattr(Hardware, "now", Hardware(bf16=True))
    for loss in (lambda *args: from_noise_loss(*args).bfloat16(), lambda *args: {"loss": from_noise_loss(*args).bfloat16()}):
        train(model, batch, loss, steps=3, optim=OPTIM, run=QUIET)
    assert set(outputs) == {torch.bfloat16}
    assert len(results) == 6 and {result["loss"].dtype for result in results} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    state = [x for optimizer in optimizers for each in optimizer.state.values() for x in each.values()]
    assert len(state) > 20 and {x.dtype for x in (*state, *(p.grad for p in model.parameters() if p.grad is not None))} == {torch.float32}
    assert products and set(products) == {torch.float32}


@pytest.mark.parametrize("make, batch, loss", cases({name: case for name, case in LOSSES.items() if "listener" not in name}))
def test_every_loss_can_be_reckoned_in_bfloat16(make, batch, loss):
    """On the CPU, whose autocast is not quite that of a card; its recurrent nets have none."""
    torch.manual_seed(0)
    model, data = make(), batch()
    result = number(Hardware(bf16=True).prepared(loss)(model, *data))
    result.backward()
    assert result.dtype == torch.float32 and result.isfinite()
    torch.manual_seed(0)
    assert result.item() == pytest.approx(number(loss(make(), *batch())).item(), rel=0.2, abs=0.2)


def test_what_is_compiled_is_the_loss(monkeypatch):
    compiled, compile_ = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda f: compiled.append(f) or compile_(f, backend="eager"))
    plain, expected = learned(Hardware(), monkeypatch)
    assert not compiled
    model, history = learned(Hardware(compile=True), monkeypatch)
    assert len(compiled) == 1 and list(model.state_dict()) == list(plain.state_dict())
    assert history.column("loss") == losses(expected)


def test_off_the_cpu_no_second_process_takes_a_half(monkeypatch):
    monkeypatch.setattr(Hardware, "now", Hardware("meta"))
    torch.manual_seed(0)
    model, data = transformer(), (*rows(), *rows())
    with in_two_processes(model) as loss:
        assert loss(model, *data)["loss"].item() == pytest.approx(mixture_loss(model, *data)["loss"].item())
        assert loss.cpu_seconds == 0 and not model.head.weight.is_shared()


# ---- what the pretended device refuses

@pytest.mark.parametrize("meet", [
    lambda x: x + torch.arange(5), lambda x: torch.arange(5) + x, lambda x: torch.cat([x, torch.arange(2)]),
    lambda x: torch.arange(5)[x], lambda x: x.float() @ torch.rand(5), lambda x: torch.arange(5).add_(x),
    lambda x: torch.rand(3, generator=torch.Generator(), device=DEVICE), lambda x: x.numpy(),
    lambda x: torch.multinomial(x.float(), 1, generator=torch.Generator()), lambda x: x.masked_fill(torch.ones(5) > 0, 0),
    lambda x: torch.nn.Embedding(5, 2).to(DEVICE)(torch.arange(2)), lambda x: torch.arange(5) + x.sum()])
def test_what_a_gpu_refuses(meet):
    with pretended(), pytest.raises((Mixed, RuntimeError)) as raised:
        meet(torch.arange(5, device=DEVICE))
    assert raised.type is Mixed or "numpy" in str(raised.value)


def test_what_a_gpu_takes():
    with pretended():
        x = torch.arange(5, device=DEVICE)
        assert (x * torch.tensor(2) + 1).tolist() == [1, 3, 5, 7, 9] and x[torch.tensor([0, -1])].tolist() == [0, 4]
        assert x[[0, -1]].tolist() == [0, 4] and x.cpu().numpy().sum() == 10 and int(x.max()) == 4
        x[1:3] = torch.tensor([7, 7])
        assert x.tolist() == [0, 7, 7, 3, 4] and x.new_zeros(2).device == torch.randn_like(x.float()).device == DEVICE
