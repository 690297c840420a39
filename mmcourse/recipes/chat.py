"""The model that converses: `mmcourse train chat`, from the pre-trained transformer in two more runs.

It learns to converse from examples (SFT), and half of what it is shown is what it could before, with phrases of speech
added. Then it practises what is still weak (GRPO, `mmcourse.posttraining`).
"""
import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.assistant import painted
from mmcourse.dataset import (
    Clips,
    Mixture,
    confuse_codes,
    heard_clips,
    image_tokens,
    mixture_loss,
    stretch,
    training_scenes,
)
from mmcourse.experiments.conversations import THINKS, Conversations, conversations, in_words
from mmcourse.judges import PictureReader
from mmcourse.optim import Optim
from mmcourse.posttraining import POLICY_OPTIM, Question, Task, post_train
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.recipes.transformer import (
    AUDIO_LEVELS,
    EMA_DECAY,
    LR,
    MUON_LR,
    SCENES,
    WARMUP,
    Part,
    edit_tokens,
    sound_tokens,
)
from mmcourse.training import History, Run, train
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import Segment
from mmcourse.world.dialogues import WRITE, Turn
from mmcourse.world.human_digits import load_human_digits
from mmcourse.world.phrases import load_phrases
from mmcourse.world.scene import WORLD

STEPS = 1600
RATE = 0.4                              # the learning rates, as a share of those of the first run
CONTEXT = 512                           # tokens: four turns or so
TEXT_WEIGHT = 4.0                       # of a token of an answer in text
TALKS = 14                              # conversations in a batch, and beside them how many sequences of each direction:
REHEARSAL = {"text->image": 6, "image->text": 5, "image+text->text": 3, "image+text->text->image": 3, "text+text->text": 6,
             "audio->text": 16, "text->audio": 5, "audio->text->image": 2, "audio->image": 1, "image->text->audio": 2,
             "image->audio": 1}
KINDS = {"ground": 0.5, "noun": 1.5, "noun of two": 2.5, "sign": 1, "long sign": 2.5, "add": 1, "remove": 2.5, "move": 0.5}
PHRASES = {"audio->text": 9 / 16, "text->audio": 3 / 5}     # their share in these rows; the others have a word
PHRASE_COPIES = 1                       # augmented copies of a phrase that the model listens to
SOUND = Part("chat", (), people=0.4, copies=12, vocal_tract=True)
PRACTICE_STEPS = 120
PRACTICE_RATE = 2e-4
PRACTICE_TALKS = 2000                   # conversations of the validation split, whose pictures it practises


class PhraseMixture(Mixture):
    """A `Mixture` that also speaks and writes down phrases.

    Args:
        phrases: what it learns to say beside single words: clean speech.
        heard_phrases: what it listens to beside single words.
        args, more: those of `Mixture`.
    """

    def __init__(self, *args, phrases: Clips, heard_phrases: Clips, **more):
        super().__init__(*args, **more)
        self.phrases, self.heard_phrases = phrases, heard_phrases

    def spoken(self, rng: np.random.Generator, word: str | None = None) -> tuple[Segment, str]:
        """A clean clip and what it says: `word`, or a phrase at times and any word at others."""
        if word is None and rng.random() < PHRASES["text->audio"]:
            tokens, text = self.phrases.pick(rng)
            return self.audio(tokens), text
        return super().spoken(rng, word)

    def row(self, name: str, rng: np.random.Generator) -> tuple[list[int], list[float]]:
        """As in a `Mixture`, but at times a phrase is heard after the request to write it down: alone it would be a request."""
        if name != "audio->text" or rng.random() >= PHRASES[name]:
            return super().row(name, rng)
        tokens, text = self.heard_phrases.pick(rng)
        tokens = stretch(tokens, self.vocabulary.audio_levels, rng)
        tokens = tokens if self.near is None else confuse_codes(tokens, self.near, rng)
        return self.weighted([self.text(WRITE), self.audio(tokens), self.text(text)], given=2)

    def weighted(self, segments: list[Segment], given: int = 1) -> tuple[list[int], list[float]]:
        """As in a `Mixture`, but the tokens that open an answer count nothing: of which kind it is, conversations teach."""
        ids, weights = super().weighted(segments, given)
        at = 0
        for number, segment in enumerate(segments):
            weights[at] = weights[at] if number < given else 0.0
            at += len(segment.ids) + 2
        return ids, weights


def longer(model: Transformer, context: int = CONTEXT) -> Transformer:
    """The same model with room for more tokens. Positions are counted within a segment, so the new ones are hardly used."""
    torch.manual_seed(0)
    new = Transformer(**{**model.config, "context": context})
    state = model.state_dict()
    rows = new.position_embed.weight.detach().clone()
    rows[:model.context] = state["position_embed.weight"]
    new.load_state_dict({**state, "position_embed.weight": rows})
    return new


def rehearsal(talks: Conversations, progress: bool = True) -> PhraseMixture:
    """What the model could before, and phrases: tokenized once and cached."""
    bpe, vqvae = talks.bpe, talks.vqvae
    data = training_scenes(SCENES)
    images = image_tokens(vqvae, data, {"jitter": 0, "unnamed": 0.0, "world": 2}, progress)
    return PhraseMixture(talks.vocabulary, bpe, data, images, rows=REHEARSAL, text_weight=TEXT_WEIGHT, kinds=KINDS,
                         edits=edit_tokens(vqvae, SCENES // 2, progress), people_share=SOUND.people,
                         **sound_tokens(SOUND, progress), **phrase_tokens(progress))


def phrase_tokens(progress: bool = True) -> dict[str, Clips]:
    """What a `PhraseMixture` says and hears of phrases: `phrases` and `heard_phrases`."""
    corpus = load_phrases("train", progress)
    # The name of the cached tokens tells what was said: another list of phrases would be as long.
    name = f"phrases {hashlib.sha256(repr((corpus.texts, corpus.voices)).encode()).hexdigest()[:12]}"
    heard = heard_clips(checkpoints.load("codec"), corpus.clips, corpus.texts, AUDIO_LEVELS, PHRASE_COPIES, name,
                        progress, vocal_tract=True)
    return {"phrases": Clips(heard.tokens[:len(corpus)], corpus.texts),       # the first copy is the clip itself
            "heard_phrases": heard}


def pictures_asked_for(data: Conversations, rng: np.random.Generator, n: int) -> list[Question]:
    """`n` turns that ask for a picture, each with the words for it: the picture alone is practised."""
    found = []
    while len(found) < n:
        talk, number = data.turns[rng.integers(len(data.turns))]
        if data.talks[talk][number].kind in ("draw", "change") and (asked := data.question(talk, number, rng)) is not None:
            words = Segment("text", tuple(data.bpe.encode(" " + in_words(asked.truth.answer))))
            found.append(replace(asked, prompt=(*asked.prompt, words)))
    return found


def captions(data: Conversations, rng: np.random.Generator, n: int) -> list[Question]:
    """`n` captions of the validation split, alone."""
    scenes = [WORLD.sample(rng, "validation") for _ in range(n)]
    return [Question((Segment("text", tuple(data.bpe.encode(" " + WORLD.caption(scene)))),), "image", scene) for scene in scenes]


def practice_tasks(data: Conversations) -> list[Task]:
    """What is practised: to draw captions, and, a third of the time, to draw and change in a conversation, which costs three
    times as much. The whole scene must be right."""
    reader = PictureReader(WORLD)

    def reward(asked, answers) -> list[float]:
        truths = [q.truth.answer.value if isinstance(q.truth, Turn) else q.truth for q in asked]
        return [float(seen == truth) for seen, truth in zip(reader.read(painted(data.vqvae, answers)), truths)]
    draw = Task("draw", partial(captions, data), reward)
    return [draw, draw, Task("draw in a conversation", partial(pictures_asked_for, data), reward)]


def learn_to_converse(model: Transformer, args, seed: int) -> tuple[History, Path]:
    """The first run: SFT on conversations and rehearsal."""
    talks = conversations("train")
    talks.rows = TALKS
    mixture = rehearsal(talks)
    run = begin(the_run(seed, mixture), args)
    optim = Optim("muon", lr=RATE * LR, muon_lr=RATE * MUON_LR, warmup=WARMUP, ema_decay=EMA_DECAY)
    return finished(train(model, lambda rng: (*talks.batch(rng), *mixture.batch(rng)), mixture_loss, steps=STEPS, optim=optim,
                          run=Run(until=min(args.steps, STEPS), seed=seed, save_every=100, resume=run))), run


def practise(model: Transformer, args, run: Path) -> History:
    """The second run: GRPO on what is still weak, pictures."""
    data = Conversations("validation", PRACTICE_TALKS)
    optim = replace(POLICY_OPTIM, lr=PRACTICE_RATE)
    made_of = hashlib.sha256(repr((PRACTICE_TALKS, PRACTICE_RATE, PRACTICE_STEPS)).encode()).hexdigest()[:10]
    return finished(post_train(model, data.vocabulary, practice_tasks(data), "grpo", steps=PRACTICE_STEPS, optim=optim,
                               run=Run(until=args.steps - STEPS, seed=args.seed, save_every=20, log_every=4,
                                       resume=begin(run.with_name(f"practice-{made_of}.pt"), args))))


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the model. `--steps` ends it earlier, on the same schedules."""
    args = options("chat", argv, STEPS + PRACTICE_STEPS)
    model = longer(checkpoints.load("transformer"))
    history, run = learn_to_converse(model, args, args.seed)
    metrics = {"loss": round(float(np.mean(history.column("loss")[-20:])), 4)}
    if args.steps > STEPS:
        practised = practise(model, args, run)
        metrics["reward"] = round(float(np.mean(practised.column("reward")[-10:])), 4)
        history.cpu_minutes += practised.cpu_minutes
    made_with = {name: checkpoints.identity(name) for name in ("bpe", "vqvae", "codec")}
    ship("chat", model, history, args, run, metrics, folder, dtype=torch.int8, tokenizers=made_with,
         vocabulary=checkpoints.manifest()["transformer"]["vocabulary"], transformer=checkpoints.identity("transformer"),
         human_digits=load_human_digits() is not None)
    return history


def the_run(seed: int, mixture: Mixture) -> Path:
    """Where the runs are kept: by what batches and steps of the first are made of."""
    return run_file("chat", code=False, seed=seed, begun_with=checkpoints.identity("transformer"), context=CONTEXT,
                    people=mixture.people is not None, rates=(RATE, WARMUP, EMA_DECAY),
                    rows=(TALKS, REHEARSAL, KINDS, PHRASES, TEXT_WEIGHT, THINKS, "openers: of conversations"),
                    data=(SCENES, PHRASE_COPIES, SOUND),
                    tokenizers=[checkpoints.identity(name) for name in ("bpe", "vqvae", "codec")])
