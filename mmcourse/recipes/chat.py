"""The model that converses: `mmcourse train chat`, from the pre-trained transformer in two more runs.

It learns to converse from examples (SFT), and beside them it is shown what it could before, phrases of speech, and what is
to be refused. Then it practises what is still weak (GRPO, `mmcourse.posttraining`).
"""
import hashlib
from dataclasses import dataclass, replace
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
    stretch,
    training_scenes,
)
from mmcourse.experiments.conversations import Conversations, Talks
from mmcourse.experiments.talking import ask_turns, rows
from mmcourse.generate import content_limit
from mmcourse.judges import PictureReader
from mmcourse.optim import Optim
from mmcourse.posttraining import POLICY_OPTIM, Question, Task, post_train
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.recipes._halves import in_two_processes
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
from mmcourse.training import Hardware, History, Run, train
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import Segment, Vocabulary
from mmcourse.world.dialogues import UNKNOWN
from mmcourse.world.human_digits import load_human_digits
from mmcourse.world.outside import PICTURES, SOUNDS
from mmcourse.world.phrases import load_phrases
from mmcourse.world.scene import WORLD


@dataclass(frozen=True)
class Stage:
    """A stretch of the first run with a schedule of its own, from the weights (their EMA) of the one before.

    Args:
        steps: how many it has. rows: how many sequences of each direction a batch has, beside `talks` turns of conversations.
        talk_weight: how much a token of an answer in a conversation counts. least: for how many it counts at least.
        others: the share of the turns that are no questions and are kept.
        phrases: the share of phrases in what is said and written down; the rest are single words.
        requests: the share of what users say, as often as they say it, in the phrases that are written down.
        confused: how often a token of what is heard is another one that sounds like it.
        rate: the learning rates, as a share of those of the pre-training.
        schedule: how many steps the learning rate's schedule spans, if it ends before them; 0: as many as it has.
    """
    steps: int
    talks: int
    talk_weight: float
    rows: dict[str, int]
    phrases: float = 0.6
    confused: float = 0.15
    rate: float = 0.4
    schedule: int = 0
    least: int = 1
    others: float = 1.0
    requests: float = 0.0


STAGES = (
    Stage(1300, 24, 1.0, {"text->image": 7, "image->text": 7, "text+text->text": 6, "audio->text": 22, "text->audio": 9,
                          "audio->text->image": 1, "image+text->text->image": 1, "image->text->audio": 1}),
    # (The shipped weights saw whole conversations, 24 a batch, in this first stage: data/checkpoints/LOG.md.)
    # Pictures were as good as before, phrases half heard, and of what was only to be copied in words a third was wrong.
    Stage(600, 110, 4.0, {"text->image": 4, "image->text": 4, "text+text->text": 6, "audio->text": 14, "text->audio": 4},
          schedule=1000),
    # Mostly listening: of a phrase four words in ten were misheard, those of training as much as new ones. So more of them, with
    # fewer tokens confused.
    Stage(1500, 72, 4.0, {"text->image": 6, "image->text": 6, "text+text->text": 5, "audio->text": 48, "text->audio": 6},
          phrases=0.75, confused=0.05, rate=0.6, schedule=2800),
    # Then talk again: answers of one or two tokens were drowned by captions (a quarter of the questions was still answered
    # wrong), and the last letters of signs went astray.
    Stage(600, 110, 4.0, {"text->image": 6, "image->text": 5, "text+text->text": 4, "audio->text": 40, "text->audio": 4},
          phrases=0.75, confused=0.05, least=8, schedule=1000),
    # Questions were hardest, those of training as much as new ones: they need the most examples.
    Stage(500, 220, 4.0, {"text->image": 4, "image->text": 4, "text+text->text": 2, "audio->text": 16, "text->audio": 3},
          phrases=0.75, confused=0.05, rate=0.5, least=8, others=0.25),
    # Of the words that it said 98 % were understood at first, and 60 % now; it described and wrote signs worse, too. What
    # was hardly practised went: so all of it again, speaking most.
    Stage(600, 60, 2.0, {"text->image": 12, "image->text": 10, "text+text->text": 3, "audio->text": 24, "text->audio": 28},
          phrases=0.5, confused=0.05, rate=0.5, least=8, others=0.5, schedule=2400),
    # The voice was back in no time (96 %). "what is it?" was still taken for a rocket, in the voices of training too: a request
    # was heard as seldom as any phrase. Now those that are made most are heard most.
    Stage(600, 90, 2.0, {"text->image": 12, "image->text": 10, "text+text->text": 3, "audio->text": 34, "text->audio": 20},
          phrases=0.6, confused=0.05, rate=0.5, least=8, others=0.4, requests=0.35, schedule=1700),
    # Single questions that go through words (`Assistant.generate`: from sound to picture, from picture to sound, edits) had not
    # been shown since the first stage, and hardly one was answered rightly.
    Stage(1100, 80, 2.0, {"text->image": 10, "image->text": 9, "text+text->text": 3, "audio->text": 32, "text->audio": 18,
                          "audio->text->image": 4, "image+text->text->image": 5, "image->text->audio": 4},
          phrases=0.6, confused=0.05, rate=0.45, least=8, others=0.4, requests=0.35),
    # Edits were the only direction in which the model before it still was better (88 % of them right, and 75 here).
    Stage(800, 80, 2.0, {"text->image": 10, "image->text": 9, "text+text->text": 3, "audio->text": 30, "text->audio": 14,
                         "audio->text->image": 7, "image+text->text->image": 18, "image->text->audio": 4},
          phrases=0.6, confused=0.05, rate=0.45, least=8, others=0.4, requests=0.35),
)
STEPS = sum(stage.steps for stage in STAGES)
CONTEXT = 512                           # tokens: three seconds of speech, and a turn in words
TEXT_WEIGHT = 4.0                       # of a token of an answer in text, outside of conversations
TALKS = 40_000                          # conversations
KINDS = {"ground": 0.5, "noun": 1.5, "noun of two": 2.5, "sign": 1, "long sign": 2.5, "add": 1, "remove": 2.5, "move": 0.5}
OUTSIDE = {"audio->text": 0.1, "image->text": 0.3}          # the share of what is not of the world, and is to be refused
PHRASE_COPIES = 1                       # augmented copies of a phrase that the model listens to
SOUND = Part("chat", (), people=0.4, copies=12, vocal_tract=True)
PRACTICE_STEPS = 120
PRACTICE_RATE = 2e-4
MEASURED = 100                          # validation conversations that are asked in the end


class Rehearsal(Mixture):
    """A `Mixture` that also speaks and writes down phrases, refuses what is not of the world, and changes captions as they are
    changed in a conversation.

    Args:
        phrases: what it learns to say beside single words: clean speech.
        heard_phrases: what it listens to beside single words.
        phrase_share: how often it is a phrase. confused: how often a token of what is heard is confused.
        requests: what users say, as often as they say it; request_share: how often such a phrase is listened to.
        outside: pictures and sounds that are not of the world, by name (`Conversations.outside`).
        args, more: those of `Mixture`.
    """

    def __init__(self, *args, phrases: Clips, heard_phrases: Clips, requests: list[str], outside: dict,
                 phrase_share: float = STAGES[0].phrases, request_share: float = STAGES[0].requests,
                 confused: float = STAGES[0].confused, **more):
        super().__init__(*args, **more)
        self.phrases, self.heard_phrases, self.requests = phrases, heard_phrases, requests
        self.phrase_share, self.request_share, self.confused = phrase_share, request_share, confused
        self.outside = {"image->text": [ids for name in PICTURES for ids in outside[name]],
                        "audio->text": [ids for name in SOUNDS for ids in outside[name]]}

    def spoken(self, rng: np.random.Generator, word: str | None = None) -> tuple[Segment, str]:
        """A clean clip and what it says: `word`, or a phrase at times and any word at others."""
        if word is None and rng.random() < self.phrase_share:
            tokens, text = self.phrases.pick(rng)
            return self.audio(tokens), text
        return super().spoken(rng, word)

    def overheard(self, rng: np.random.Generator, word: str | None = None) -> tuple[Segment, str]:
        """A clip to be listened to and what it says: `word`, or a phrase at times and any word at others."""
        if word is None and rng.random() < self.phrase_share:
            request = self.requests[rng.integers(len(self.requests))] if rng.random() < self.request_share else None
            tokens, text = self.heard_phrases.pick(rng, request)
            return self.audio(self.disturbed(tokens, rng)), text
        return super().overheard(rng, word)

    def disturbed(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A sound at another tempo, its codes confused."""
        tokens = stretch(tokens, self.vocabulary.audio_levels, rng)
        return tokens if self.near is None else confuse_codes(tokens, self.near, rng, self.confused)

    def row(self, name: str, rng: np.random.Generator) -> tuple[list[int], list[float]]:
        """As in a `Mixture`, but at times of what is not of the world; and a caption is changed as in a conversation."""
        if rng.random() < OUTSIDE.get(name, 0.0):
            tokens = self.outside[name][rng.integers(len(self.outside[name]))]
            shown = self.image(tokens) if name == "image->text" else self.audio(self.disturbed(tokens, rng))
            return self.weighted([shown, self.text(UNKNOWN)])
        if name == "text+text->text":
            before, instruction, after = self.sequence(name, rng)
            asked = self.vocabulary.pack([Segment("image", ()), before, instruction])
            answer = self.vocabulary.pack([Segment("image", ()), after])
            return asked + answer, [0.0] * len(asked) + [1.0, 0.0, 0.0] + [self.text_weight] * (len(answer) - 3)
        return super().row(name, rng)

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


def rehearsal(bpe, vocabulary: Vocabulary, progress: bool = True) -> Rehearsal:
    """What the model could before, phrases, and what is not of the world: tokenized once and cached."""
    vqvae, data, talks = checkpoints.load("vqvae"), training_scenes(SCENES), Conversations("train", progress=progress)
    images = image_tokens(vqvae, data, {"jitter": 0, "unnamed": 0.0, "world": 2}, progress)
    return Rehearsal(vocabulary, bpe, data, images, rows=STAGES[0].rows, text_weight=TEXT_WEIGHT, kinds=KINDS,
                     edits=edit_tokens(vqvae, SCENES // 2, progress), people_share=SOUND.people, outside=talks.outside,
                     **sound_tokens(SOUND, progress), **phrase_tokens(talks, progress))


def phrase_tokens(talks: Conversations, progress: bool = True) -> dict:
    """What it says and hears of phrases, `phrases` and `heard_phrases`: those of the corpus, and what is said in
    conversations; `requests`: what users say there. It says only what an answer has room for."""
    corpus = load_phrases("train", progress)
    # The name of the cached tokens tells what was said: another list of phrases would be as long.
    name = f"phrases {hashlib.sha256(repr((corpus.texts, corpus.voices)).encode()).hexdigest()[:12]}"
    heard = heard_clips(checkpoints.load("codec"), corpus.clips, corpus.texts, AUDIO_LEVELS, PHRASE_COPIES, name,
                        progress, vocal_tract=True)
    clean = [*zip(heard.tokens, corpus.texts), *zip(talks.said.tokens, talks.said.words)]  # the first copy is the clip itself
    room = content_limit(talks.vocabulary, "audio")
    said = [(tokens, text) for tokens, text in clean if len(tokens) <= room]
    return {"phrases": Clips(*map(list, zip(*said))),
            "heard_phrases": Clips([*heard.tokens, *talks.heard.tokens], [*heard.words, *talks.heard.words]),
            "requests": [part.value for talk in talks.talks for turn in talk for part in turn.given if part.kind == "spoken"]}


def captions(bpe, rng: np.random.Generator, n: int) -> list[Question]:
    """`n` captions of the validation split."""
    scenes = [WORLD.sample(rng, "validation") for _ in range(n)]
    return [Question((Segment("text", tuple(bpe.encode(" " + WORLD.caption(scene)))),), "image", scene) for scene in scenes]


def drawing(bpe, vqvae) -> Task:
    """What is practised: to draw a caption. The whole scene must be right, as the templates see it."""
    reader = PictureReader(WORLD)

    def reward(asked, answers) -> list[float]:
        return [float(seen == question.truth) for question, seen in zip(asked, reader.read(painted(vqvae, answers)))]
    return Task("draw", partial(captions, bpe), reward)


def learn_to_converse(model: Transformer, args) -> tuple[float, Path]:
    """The first run: SFT on conversations and rehearsal, in stages. Returns its CPU minutes and the file of the last stage."""
    bpe, vocabulary = checkpoints.load("bpe"), Vocabulary(**checkpoints.manifest()["transformer"]["vocabulary"])
    talks, mixture = Talks(bpe, vocabulary, talks=TALKS), rehearsal(bpe, vocabulary)
    left, minutes = args.steps, 0.0
    for number, stage in enumerate(STAGES):
        talks.rows, talks.weight, talks.least, talks.others = stage.talks, stage.talk_weight, stage.least, stage.others
        mixture.rows, mixture.phrase_share, mixture.confused = stage.rows, stage.phrases, stage.confused
        mixture.request_share = stage.requests
        run = begin(stage_file(number, args.seed, mixture), args)
        schedule = stage.schedule or stage.steps
        optim = Optim("muon", lr=stage.rate * LR, muon_lr=stage.rate * MUON_LR, warmup=WARMUP, ema_decay=EMA_DECAY)
        with in_two_processes(model) as loss:           # its CPU minutes are counted from this start on, a run's from its first
            history = finished(train(
                model, lambda rng: (*talks.batch(rng), *mixture.batch(rng)), loss, steps=schedule, optim=optim,
                run=Run(until=min(left, stage.steps), seed=args.seed + number, save_every=100, resume=run)))
        minutes, left = minutes + history.cpu_minutes + loss.cpu_seconds / 60, left - stage.steps
        if left <= 0:
            break
    return minutes, run


def practise(model: Transformer, args, run: Path) -> History:
    """The second run: GRPO on what is still weak, drawing."""
    task = drawing(checkpoints.load("bpe"), checkpoints.load("vqvae"))
    made_of = hashlib.sha256(repr((PRACTICE_RATE, PRACTICE_STEPS, STEPS)).encode()).hexdigest()[:10]
    with Hardware.now.holding(model):                   # before its copy is made, the reference
        return finished(post_train(model, Vocabulary(**checkpoints.manifest()["transformer"]["vocabulary"]), [task], "grpo",
                                   steps=PRACTICE_STEPS, optim=replace(POLICY_OPTIM, lr=PRACTICE_RATE),
                                   run=Run(until=args.steps - STEPS, seed=args.seed, save_every=20, log_every=4,
                                           resume=begin(run.with_name(f"practice-{made_of}.pt"), args))))


def measure(model: Transformer) -> dict:
    """Turns of validation conversations: of how many the answer is right, by what was asked and how."""
    data = Conversations("validation", MEASURED, progress=False)
    return {group: f"{row['right']} of {row['n']}" for group, row in rows(data, ask_turns(model, data)).items()}


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the model. `--steps` ends it earlier, on the same schedules."""
    args = options("chat", argv, STEPS + PRACTICE_STEPS)
    torch.set_num_threads(max(1, args.threads // 2))    # for each of two processes
    model = longer(checkpoints.load("transformer"))
    minutes, run = learn_to_converse(model, args)
    history = practise(model, args, run) if args.steps > STEPS else History()
    history.cpu_minutes += minutes
    made_with = {name: checkpoints.identity(name) for name in ("bpe", "vqvae", "codec")}
    ship("chat", model, history, args, run, measure(model), folder, dtype=torch.int8, tokenizers=made_with,
         vocabulary=checkpoints.manifest()["transformer"]["vocabulary"], transformer=checkpoints.identity("transformer"),
         human_digits=load_human_digits() is not None)
    return history


def stage_file(number: int, seed: int, mixture: Mixture) -> Path:
    """Where a stage is kept: by what it and those before it are made of. A stage may be added at the end."""
    return run_file("chat", code=False, stages=STAGES[:number + 1], seed=seed, begun_with=checkpoints.identity("transformer"),
                    context=CONTEXT, people=mixture.people is not None, rates=(LR, MUON_LR, WARMUP, EMA_DECAY),
                    rows=(TALKS, KINDS, OUTSIDE, TEXT_WEIGHT), data=(SCENES, PHRASE_COPIES, SOUND),
                    tokenizers=[checkpoints.identity(name) for name in ("bpe", "vqvae", "codec")])
