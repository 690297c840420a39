"""What a linear probe reads out of the shipped model's states, and out of what has learned nothing. About four CPU minutes.

A picture of one kind of thing with a sign of three letters, then its caption; states after 0, 1, 4 and 6 blocks at three
places: the mean over the picture's 64 tokens, at `</image>`, and at the article (or number) before the thing. The probe is
trained on 1,200 scenes of the training split and asked about scenes whose pair of thing and ground it has not seen. Spoken words:
the mean over their tokens. Controls: the untrained twin; the bag of embeddings (mean of the tokens' vectors, without positions:
no layer at all); and a control task, whose labels dice gave to each pair of thing and ground (Hewitt and Liang 2019), asked
about new scenes of the *same* pairs. Selectivity: right minus right on the control task. Written down before it ran, after a
pilot with one probe each at three layers:

- P1: the thing is read at `</image>` from the shipped model in over 80 % after block 3, from the untrained twin in under 10 %.
- P2: ground and count come out of the bag of embeddings (over 95 %): a probe that finds them in the model says little about it.
- P3: place does not come out of the bag beyond what the codes of half-filled patches tell (50 to 90 %), and does, everywhere,
  after block 0 (over 99 %); also from the untrained twin's mean (over 90 %): positions are in its states from the start.
- P4: letters are not to be had linearly from the mean (under 20 %), and at the article neither (under 20 %): a linear probe that
  fails does not show that the model does not know, for it spells them (over 95 %).
- P5: selectivity of the thing at the article exceeds that at the mean.
- P6: a spoken word is read from the mean after block 3 in at least 20 points more than from the twin; the voice is not (within
  10 points of the bag or below): what the task does not need is not made clearer.

The pilot's probe was a logistic regression of one strength, and so were those of a first run, which was stopped because each took
seconds. The one that ran is a ridge classifier whose strength is chosen by leaving one out. On scenes of validation the first
found the thing at `</image>` of a twin in a fifth of the cases, the second in nine of ten: P1 was written by a probe that could
not see what was there.

Rows: `pictures`: model -> place -> factor -> share right by layer (those of the plan); `control` the same for dice's labels;
`bag`, `sounds`.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.dataset import speech_tokens
from mmcourse.experiments.aligned import Rows
from mmcourse.experiments.concepts import concept_states
from mmcourse.experiments.inside import states
from mmcourse.experiments.probes import control_labels, probe
from mmcourse.studies import Job, Study
from mmcourse.studies._ch13 import READ, made_with, rows, shipped, tokenizers, twin
from mmcourse.vocabulary import Segment
from mmcourse.world.scene import WORDS, held_out_voice
from mmcourse.world.speech import load_speech

FACTORS = {"thing": lambda scene: scene.groups[0].noun, "ground": lambda scene: scene.background,
           "place": lambda scene: scene.groups[0].place, "count": lambda scene: scene.groups[0].count,
           **{f"letter {i + 1}": lambda scene, i=i: scene.sign[i] for i in range(3)}}
CLASSES = {"thing": 64, "ground": 8}                    # whose control tasks are asked too
PLACES = {"mean of the picture": lambda x: x[:, 1:READ - 1].mean(1), "</image>": lambda x: x[:, READ - 1],
          "before the thing": lambda x: x[:, READ + 1]}


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    scenes: int = 1200
    layers: tuple[str, ...] = ("embed", "blocks.0", "blocks.3", "blocks.5")
    asked: int = 300
    sounds: int = 1200
    asked_sounds: int = 300
    split: str = "test"


def of_pictures(model: str, seed: int, plan: Plan) -> dict:
    """A row of `pictures`."""
    net = shipped() if model == "shipped" else twin(seed)
    known, same = (rows("described", n, "train", first + seed, True) for n, first in ((plan.scenes, 200), (plan.asked, 300)))
    new = rows("described", plan.asked, plan.split, seed, True)
    seen, again, asked = (states(net, each.ids, names=plan.layers) for each in (known, same, new))
    out = {"right": {}, "control": {}}
    for place, of in PLACES.items():
        out["right"][place] = {factor: [
            round(probe(of(seen[name]), labels(known, factor), of(asked[name]), labels(new, factor)), 4)
            for name in seen] for factor in FACTORS}
        out["control"][place] = {}
        for factor, classes in CLASSES.items():
            dice = control_labels(pairs(known) + pairs(same), classes, seed)
            first, second = dice[:len(known.ids)], dice[len(known.ids):]
            out["control"][place][factor] = [round(probe(of(seen[name]), first, of(again[name]), second), 4) for name in seen]
    return out


def labels(found: Rows, factor: str) -> list:
    """What a probe is to say."""
    return [FACTORS[factor](scene) for scene in found.scenes]


def pairs(found: Rows) -> list[tuple[str, str]]:
    """The kind of each scene, for the control task."""
    return [(scene.groups[0].noun, scene.background) for scene in found.scenes]


@torch.no_grad()
def of_bags(seed: int, plan: Plan) -> dict:
    """A row of `bag`: the mean of the picture tokens' embeddings."""
    known = rows("described", plan.scenes, "train", 200 + seed, True)
    new = rows("described", plan.asked, plan.split, seed, True)
    bags = [shipped().token_embed(each.ids[:, 1:READ - 1]).mean(1) for each in (known, new)]
    return {factor: round(probe(bags[0], labels(known, factor), bags[1], labels(new, factor)), 4) for factor in FACTORS}


# ---------------------------------------------------------------- sounds

@cache
def words_in_voices(seed: int, plan: Plan) -> tuple[list[Segment], np.ndarray, np.ndarray, np.ndarray]:
    """Spoken words of training voices, the words, the voices, and for each clip whether it is asked about."""
    corpus, dice = load_speech(progress=False), np.random.default_rng((1304, seed))
    own = [i for i, (word, voice) in enumerate(zip(corpus.words, corpus.voices))
           if word in WORDS and not held_out_voice(voice)]
    chosen = dice.choice(own, plan.sounds + plan.asked_sounds, replace=False)
    clips, levels = [corpus.clips[i] for i in chosen], tokenizers()[2].audio_levels
    tokens = speech_tokens(checkpoints.load("codec"), clips, levels, progress=False)
    segments = [Segment("audio", tuple(ids.tolist())) for ids in tokens]
    return (segments, np.array([corpus.words[i] for i in chosen]), np.array([corpus.voices[i] for i in chosen]),
            np.arange(len(chosen)) >= plan.sounds)


@torch.no_grad()
def of_sounds(model: str, seed: int, plan: Plan) -> dict:
    """A row of `sounds`: word and voice by layer; `bag`: one number each."""
    segments, words, voices, asked = words_in_voices(seed, plan)
    if model == "bag":
        rows_ = [torch.tensor(tokenizers()[2].shift(segment)) for segment in segments]
        made = {"bag": torch.stack([shipped().token_embed(row).mean(0) for row in rows_])}
    else:
        net = shipped() if model == "shipped" else twin(seed)
        made = {name: x for name, x in concept_states(net, tokenizers()[2], segments).items() if name in plan.layers}
    return {factor: [round(probe(x[~asked], values[~asked], x[asked], values[asked]), 4) for x in made.values()]
            for factor, values in (("word", words), ("voice", voices))}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Three draws of scenes and clips, three twins."""
    parts = [(("pictures", model), partial(of_pictures, model)) for model in ("shipped", "untrained")]
    parts += [(("bag",), of_bags)]
    parts += [(("sounds", model), partial(of_sounds, model)) for model in ("shipped", "untrained", "bag")]
    return [Job(f"{', '.join(section)}, seed {seed}", partial(measure, seed, plan), section, str(seed), seed=seed)
            for seed in seeds for section, measure in parts]


def head(plan: Plan) -> dict:
    """The plan and the models."""
    return {"plan": asdict(plan), "made with": made_with("transformer", "vqvae", "bpe", "codec")}


TOY = Plan(scenes=40, layers=("blocks.3",), asked=10, sounds=60, asked_sounds=10, split="validation")
STUDY = Study("ch13_probes", Plan(), TOY, jobs, head, seeds=(0, 1, 2), minutes=True)
main = STUDY.run
