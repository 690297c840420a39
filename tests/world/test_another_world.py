"""Two other worlds in 32 x 32 pixels, from caption to answer: other things on other backgrounds; signs alone."""
import dataclasses
import math

import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.bpe import BPETokenizer
from mmcourse.codec import AudioCodec
from mmcourse.dataset import (
    DIRECTIONS,
    Clips,
    Mixture,
    image_tokens,
    mixture_loss,
    partial_caption,
    speech_tokens,
    training_edits,
    training_scenes,
)
from mmcourse.generate import generate
from mmcourse.judges import PictureReader
from mmcourse.judges.picture_net import PictureNet, picture_loss, targets
from mmcourse.optim import Optim
from mmcourse.training import Run, train
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Segment, Vocabulary
from mmcourse.vqvae import VQVAE, vqvae_loss
from mmcourse.world.corpus import captions, spoken_words
from mmcourse.world.edits import KINDS, make_edit, possible, sample_edit
from mmcourse.world.grammar import Grammar
from mmcourse.world.rules import SignRule, SplitRule
from mmcourse.world.scene import SPLITS, Group, Scene, World, scene_bits

FARM = World(
    {"goat": "🐐", "horse": "🐴", "pig": "🐷", "mouse": "🐭", "sheep": "🐑"},
    {"night": (40, 44, 82), "sand": (222, 190, 132), "meadow": (120, 196, 96)},
    counts=(0.6, 0.4), doubles=0.2, size=32, spoken=("hello",),
    signs=SignRule(words=("HAY", "MILK", "WOOL", "EGGS", "BARN", "OATS"), share=0.4),
    grammar=Grammar("scene", "board", spelled=False, plurals={"mouse": "mice", "sheep": "sheep"}),
    split=SplitRule(0.4, salt="one"))
SIGNS = World(
    {}, {"paper": (240, 236, 220), "slate": (90, 96, 104)}, kinds=(0,), size=32,
    signs=SignRule(words=tuple("ACT BAY CUP DEW ELK FOG GEM HUT KITE LAMP MOON NEST OVEN PLUM QUIZ ROSE "
                               "TIGER UNCLE VALVE WHEAT".split()), letter=10, top=22),
    split=SplitRule(0.3, salt="hay"))
WORLDS = pytest.mark.parametrize("world", [FARM, SIGNS], ids=["farm", "signs"])


def some(world: World, n: int, split: str = "any", seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [world.sample(rng, split) for _ in range(n)]


# ---------------------------------------------------------------- scenes, captions, splits

def test_captions_speak_the_grammar_of_their_world():
    scene = Scene((Group("sheep", 1, "left"), Group("mouse", 2, "right")), "night", "WOOL")
    assert FARM.caption(scene) == "a sheep on the left, two mice on the right, night scene, board WOOL"
    assert FARM.parse(FARM.caption(scene)) == scene
    alone = Scene((), "slate", "TIGER")
    assert SIGNS.caption(alone) == "slate ground, sign T I G E R" and SIGNS.parse(SIGNS.caption(alone)) == alone
    for text in ("a cat on the left, night scene", "a goat on the left, blue scene", "three goats, night scene",
                 "two mouses on the left, night scene", "a goat on the left, night ground",
                 "night scene, board WOOL"):
        with pytest.raises(ValueError):
            FARM.parse(text)
    with pytest.raises(ValueError, match="unknown noun 'cat'; the world has: goat, horse, pig, mouse, sheep"):
        FARM.draw([Scene((Group("cat", 1, "left"),), "night")])
    with pytest.raises(ValueError, match="at most 2 of a kind"):
        FARM.check(Scene((Group("goat", 3),), "night"))


@WORLDS
def test_sampled_scenes_are_of_their_world_and_split(world):
    for split in ("train", "validation", "test"):
        scenes = some(world, 200, split)
        assert {world.split_of(scene) for scene in scenes} == {split}
        assert all(world.parse(world.caption(scene)) == scene for scene in scenes)
    assert {len(scene.groups) for scene in scenes} == set(world.kinds)
    assert {scene.sign for scene in some(world, 400)} - {""} == set(world.signs.words)
    assert all(word in captions(500, world=world).replace(" ", "") for word in world.backgrounds)


def every_scene(world: World):
    """All scenes that a world has, drawings unmoved."""
    things = [()] if 0 in world.kinds else []
    for left in world.nouns if max(world.kinds) else ():
        things += [(Group(left, n, place),) for n in (1, 2) for place in ("left", "right")]
        things += [(Group(left, a, "left"), Group(right, b, "right")) for right in world.nouns if right != left
                   for a in (1, 2) for b in (1, 2)]
    for background in world.backgrounds:
        for groups in things:
            yield from (Scene(groups, background, sign) for sign in (*world.signs.words, "") if sign or groups)


@WORLDS
@pytest.mark.parametrize("split", SPLITS)
def test_what_the_scenes_of_a_split_are_worth_adds_up_to_one(world, split):
    """Against the split itself: exactly the scenes that can be drawn, with probabilities whose sum is 1."""
    def drawn(scene: Scene) -> bool:
        pairs = {world.pair_split(g.noun, scene.background) for g in scene.groups}
        worst = "test" if "test" in pairs else "validation" if "validation" in pairs else "train"
        right = not scene.sign or world.sign_split(scene.sign) in SPLITS[split]
        return right and (not scene.groups or worst in SPLITS[split])
    p = {scene: 2 ** -scene_bits(scene, split, world) for scene in every_scene(world) if drawn(scene)}
    assert sum(p.values()) == pytest.approx(1)
    assert set(some(world, 300, split)) <= set(p)
    bits = np.mean([scene_bits(scene, split, world) for scene in some(world, 600, split)])
    entropy = -sum(q * math.log2(q) for q in p.values())
    assert bits == pytest.approx(entropy, rel=0.06)                    # a sum of 600 draws against the whole


def test_edits_stay_in_their_world():
    for kind in KINDS:
        for split in ("train", "held-out"):
            edits = [sample_edit(np.random.default_rng(seed), split, kind, FARM) for seed in range(15)]
            assert all(FARM.parse(FARM.caption(edit.after)) == edit.after for edit in edits)
            assert {FARM.is_held_out(edit.after) for edit in edits} == {split == "held-out"}
    rng = np.random.default_rng(0)
    said = "; ".join(sample_edit(rng, world=FARM).instruction for _ in range(300))
    assert "make the scene night" in said and "with mice" in said and "the mice" in said
    assert "mouses" not in said and "remove the board" in said
    signs = {word for word in FARM.signs.words if f"make the board {word};" in said}
    assert signs == {word for word in FARM.signs.words if FARM.sign_split(word) == "train"}
    alone = SIGNS.sample(np.random.default_rng(0))
    assert possible(alone, SIGNS) == ("ground", "sign")
    assert all(make_edit(alone, "sign", np.random.default_rng(seed), SIGNS).after.sign for seed in range(20))
    pairs = dataclasses.replace(FARM, kinds=(2,))
    assert "remove" not in possible(pairs.sample(np.random.default_rng(0)), pairs)
    with pytest.raises(ValueError, match="no edit of the kind 'remove'"):
        sample_edit(np.random.default_rng(0), "train", "remove", pairs)


# ---------------------------------------------------------------- pictures and judges

@WORLDS
def test_the_reader_reads_true_pictures_perfectly(world):
    scenes = list(every_scene(world))[:: 7 if world is FARM else 1] + some(world, 100)
    pictures = world.draw(scenes)
    assert pictures.shape == (len(scenes), 3, 32, 32)
    assert PictureReader(world).read(pictures) == scenes
    noise = 0.05 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    assert PictureReader(world).read((pictures + noise).clamp(0, 1)) == scenes
    blank = torch.tensor(list(world.backgrounds.values()))[:, :, None, None].expand(-1, -1, 32, 32) / 255
    assert PictureReader(world).read(blank) == [None] * len(world.backgrounds)
    with pytest.raises(ValueError, match=r"shape \(B, 3, 32, 32\), got \(1, 3, 64, 64\)"):
        PictureReader(world).read(torch.zeros(1, 3, 64, 64))


def test_a_picture_net_of_another_world_learns_and_is_kept(tmp_path):
    net = PictureNet(8, FARM.nouns, FARM.backgrounds)
    scenes = some(FARM, 16)
    fixed = FARM.draw(scenes), *targets(scenes, FARM)
    history = train(net, lambda rng: fixed, picture_loss, steps=30, optim=Optim(lr=1e-2, warmup=5),
                    run=Run(log_every=1, progress=False))
    assert history.column("loss")[-1] < 0.6 * history.column("loss")[0]
    assert {said[2] for said in net.read(fixed[0])} <= set(FARM.backgrounds)
    checkpoints.save("farm_judge", net, seed=0, steps=30, cpu_minutes=0, metrics={}, folder=tmp_path)
    again = checkpoints.load("farm_judge", tmp_path)
    assert again.read(fixed[0]) == net.read(fixed[0]) and again.known_nouns == FARM.nouns


# ---------------------------------------------------------------- tokens, mixture, transformer, answers

@pytest.fixture(scope="module")
def vqvae() -> VQVAE:
    """An image tokenizer after a few steps on both worlds, for pictures of 16 tokens."""
    torch.manual_seed(0)
    model = VQVAE(codebook_size=32, dim=8, width=32)
    scenes = [(world, some(world, 16, "train")) for world in (FARM, SIGNS)]
    fixed = torch.cat([world.draw(these) for world, these in scenes])
    history = train(model, lambda rng: (fixed,), vqvae_loss, steps=40, optim=Optim(lr=3e-3, warmup=5),
                    run=Run(log_every=1, progress=False))
    assert history.column("loss")[-1] < 0.7 * history.column("loss")[0]
    assert model.encode(fixed).shape == (32, 4, 4) and model.decode(model.encode(fixed)).shape == fixed.shape
    return model


def learn(world: World, mixture: Mixture, steps: int) -> Transformer:
    """A small transformer after a few steps on a mixture."""
    torch.manual_seed(0)
    model = Transformer(mixture.vocabulary.size, width=32, layers=2, heads=2, context=256,
                        segment_starts=tuple(OPEN.values()))
    history = train(model, mixture.batch, mixture_loss, steps=steps, optim=Optim(lr=5e-3, warmup=5),
                    run=Run(log_every=1, progress=False))
    losses = history.column("loss")
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    return model


def test_a_model_learns_the_farm_in_all_directions(vqvae):
    bpe = BPETokenizer.train(captions(300, world=FARM) + spoken_words(FARM), 290)
    corpus = FARM.speech(progress=False)
    assert set(corpus.words) == set(FARM.words) == {*FARM.nouns, *FARM.backgrounds, "hello"}
    assert len(corpus) == len(FARM.words) * 96
    chosen = [i for word in FARM.words for i in corpus.select(word)[:2]]
    codec = AudioCodec(width=16, dim=8, codebook_size=16, levels=2).eval()
    tokens = speech_tokens(codec, [corpus.clips[i] for i in chosen], 2, progress=False)
    clips = Clips(tokens, [corpus.words[i] for i in chosen])

    scenes, edits = training_scenes(40, world=FARM), training_edits(20, world=FARM)
    images = image_tokens(vqvae, scenes, None, progress=False, world=FARM)
    changed = np.stack([image_tokens(vqvae, [getattr(e, when) for e in edits], None, False, FARM)
                        for when in ("before", "after")], 1)
    assert images.shape == (40, 16) and images.dtype == np.int16
    vocabulary = Vocabulary(bpe.vocab_size, 32, 16, 2, image_tokens=16)
    mixture = Mixture(vocabulary, bpe, scenes, images, clips, dict.fromkeys(DIRECTIONS, 1),
                      edits=(edits, changed), world=FARM)
    for name in DIRECTIONS:
        segments = mixture.sequence(name, np.random.default_rng(0))
        assert tuple(s.modality for s in segments) == DIRECTIONS[name].modalities
        assert vocabulary.unpack(vocabulary.pack(segments)) == segments
    model = learn(FARM, mixture, steps=25)

    prompt = [[Segment("text", tuple(bpe.encode(" " + FARM.caption(scene))))] for scene in scenes[:3]]
    drawn = generate(model, vocabulary, prompt, "image", seed=0)
    pictures = vqvae.decode(torch.tensor([s.ids for s in drawn]).view(-1, 4, 4))
    assert pictures.shape == (3, 3, 32, 32) and len(PictureReader(FARM).read(pictures)) == 3
    spoken = generate(model, vocabulary, prompt, "audio", seed=0, limit=16)
    assert all(s.modality == "audio" and len(s.ids) % 2 == 0 for s in spoken)


def test_a_model_learns_signs_alone(vqvae):
    bpe = BPETokenizer.train(captions(300, world=SIGNS), 270)
    scenes, edits = training_scenes(40, world=SIGNS), training_edits(10, world=SIGNS)
    images = image_tokens(vqvae, scenes, None, progress=False, world=SIGNS)
    changed = np.stack([image_tokens(vqvae, [getattr(e, when) for e in edits], None, False, SIGNS)
                        for when in ("before", "after")], 1)
    vocabulary = Vocabulary(bpe.vocab_size, 32, 0, 2, image_tokens=16)
    rows = {"text->image": 4, "image->text": 4, "image+text->text->image": 2, "text+text->text": 2}
    mixture = Mixture(vocabulary, bpe, scenes, images, Clips([], []), rows, edits=(edits, changed),
                      kinds={"sign": 1, "ground": 1}, world=SIGNS)
    model = learn(SIGNS, mixture, steps=25)
    prompts = [[Segment("image", tuple(row.tolist()))] for row in images[:2]]
    answers = generate(model, vocabulary, prompts, "text", seed=0, limit=12)
    assert all(isinstance(bpe.decode(s.ids), str) for s in answers)
    assert partial_caption(Scene((), "slate", "KITE"), np.random.default_rng(0), SIGNS) == "sign K I T E"
    for name in ("audio->image", "audio->text->image", "image->audio", "image->text->audio"):
        with pytest.raises(ValueError, match="nothing in it that could be named aloud: leave the directions"):
            mixture.sequence(name, np.random.default_rng(0))
