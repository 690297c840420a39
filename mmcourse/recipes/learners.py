"""The nets that learn from examples (chapter 10): `mmcourse train learners`, four nets, about six CPU minutes in all.

What the chapter shows: labels drawn anew (`forced`), words bound to pictures (`binding`), a sign that is added
(`sign`), words in a voice (`voice`). They are the nets of seed 0 of the study `ch10_context`: same tasks, same steps.
"""
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.experiments.episodes import binding, forced, rules
from mmcourse.experiments.learners import (
    Learners,
    Task,
    applied,
    binding_task,
    called,
    drawn,
    forced_task,
    learn,
    rule_task,
    sounded,
    voice_task,
)
from mmcourse.experiments.thing_tokens import ThingTokens
from mmcourse.experiments.voices import SpokenWords, pitch_error, spoken, to_sound
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.training import History

STEPS = {"forced": 800, "binding": 1500, "sign": 833, "voice": 1200}
NO_PITCH = 9999                         # cents: what an answer without any pitch counts as


@cache
def things() -> ThingTokens:
    """The things as tokens, made once a process."""
    return ThingTokens(checkpoints.load("glyph_vqvae"))


@cache
def voices() -> SpokenWords:
    """Words in voices, as numbers, made once a process."""
    return SpokenWords()


def task(name: str, steps: int) -> Task:
    """What a net of `STEPS` learns."""
    if name == "voice":
        return voice_task(voices(), steps)
    if name == "sign":
        return rule_task(things(), "glyph", steps)
    return {"forced": forced_task, "binding": binding_task}[name](things(), steps)


def measure(nets: Learners, n: int = 512, said: int = 100) -> dict:
    """What the nets know of validation after one example (of a class): shares of `n` episodes that are right, of signs
    those that training had and held-out ones; of `said` words the median error of the pitch in cents, without an example
    and after one."""
    rng = np.random.default_rng((10, 3))
    named = forced(things(), rng, n, k=1, split="validation")
    bound = binding(things(), rng, n, k=1, split="validation")
    shares = {"forced": called(nets["forced"], things(), named) == named.labels[:, -1],
              "binding": (drawn(nets["binding"], bound) == bound.pictures[:, -1]).all(1)}
    for name, held in (("sign", False), ("sign_held_out", True)):
        ruled = rules(things(), rng, n, "glyph", pairs=1, split="validation", held=held)
        shares[name] = (applied(nets["sign"], ruled) == ruled.after[:, -1]).all(1)
    return ({f"{name}_right": round(right.float().mean().item(), 4) for name, right in shares.items()}
            | pitch_cents(nets, rng, said))


def pitch_cents(nets: Learners, rng: np.random.Generator, n: int) -> dict:
    """The median error of the pitch of `n` words in validation's voices, the same without an example and after one."""
    episode = spoken(voices(), rng, n, 1, "validation")
    alone = replace(episode, words=episode.words[:, -1:], sounds=episode.sounds[:, -1:])
    true = voices().pitch[episode.voices[:, -1], episode.said[:, -1]]                   # (n,)
    answers = {f"voice_cents_k{k}": sounded(nets["voice"], asked) for k, asked in enumerate((alone, episode))}
    return {name: round(float(np.nanmedian([min(pitch_error(to_sound(voices(), one), pitch), NO_PITCH)
                                            for one, pitch in zip(sounds, true)])), 1)
            for name, sounds in answers.items()}


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) each net, and ship all in one file, in half precision. `--steps`: of each net."""
    args = options("learners", argv, 0)
    made_with = {name: checkpoints.identity(name) for name in ("glyph_vqvae", "codec")}
    trained, history, steps = {}, History(), {name: args.steps or n for name, n in STEPS.items()}
    for name, n in steps.items():
        run = begin(run_file("learners", net=name, seed=args.seed, steps=n, **made_with), args)
        trained[name], one = learn(task(name, n), args.seed, progress=True, resume=run, log_every=50)
        history.cpu_minutes += finished(one).cpu_minutes
        print(f"{name}: {n} steps, loss {one.column('loss')[-1]:.3f}")
    args.steps = sum(steps.values())
    nets = Learners.of(trained).half().float().eval()                   # measured as they are in the file
    run = run_file("learners", seed=args.seed, steps=args.steps, **made_with)
    ship("learners", nets, history, args, run, measure(nets), folder, dtype=torch.float16, tokenizers=made_with,
         steps_of_each=steps)
    return history
