"""The words of the world in voices that are not those of `mmcourse.world.speech`: for judges alone.

The models of the course imitate `VOICES`, and `mmcourse.judges.hearing.WordJudge` learned from the same clips.
The voices here share espeak-ng's pronunciation with them, but no variant (the part after "+").
"""
import numpy as np

from mmcourse.world.phrases import LONGEST, SPEEDS, aloud, sample_phrase
from mmcourse.world.speech import SAMPLE_RATE, SpeechCorpus, cached_clips, corpus_jobs

# Left out of espeak-ng 1.52's variants, besides those of `VOICES`:
# - with breath (f2, f3, f5, Alicia, Reed, Storm, ...): espeak-ng may make their noise anew in each process;
# - near twins of a voice of the course, by the mean distance of smoothed log-mel spectra: fast, klatt6,
#   steph3, benjamin, Gene2, Henrique, edward2, croak, grandpa, klatt5, anikaRobot;
# - kaukovalta, of which WordJudge hears 39 %, and the echoes RicishayMax2 and RicishayMax3.
OTHER_VOICES = tuple("""
en-us+AnxiousAndy en-us+Lee en-us+Marco en-gb-scotland+Mario en-us+Nguyen en-us+RicishayMax
en-us+Tweaky en-us+UniRobot en-us+announcer en-us+aunty en-us+boris en+grandma
en-gb-x-rp+gustave en-us+ian en-us+iven en-gb-x-gbclan+iven2 en+iven3 en-us+iven4
en-us+john en-us+klatt en-us+klatt2 en+klatt3 en-us-nyc+klatt4 en+marcelo
en-us+michel en-gb-x-rp+miguel en-us+mike2 en-us+norbert en-us+pedro en-us-nyc+quincy
en-gb-scotland+robert en-us+robosoft en-us+robosoft2 en+robosoft4 en-029+robosoft5 en-us+robosoft6
en-us+robosoft7 en-gb-x-gbcwmd+robosoft8 en-us+shelby en+travis
""".split())
VALIDATION_VOICES = ("en-us+boris", "en+grandma", "en-us+norbert")
LOWEST_PITCH = 20            # the course's voices speak at pitches of 30 to 69, these at 20 to 84
PITCH_RANGE = 65
# SHA-256 of the clips that espeakng-loader 0.2.4 makes (espeak-ng 1.52)
EXPECTED = "1d8959d22f7df0e6cbf577ddd5a456c08b4dbb752f9cd86b95c88078a3f8c375"


def load_other_voices(progress: bool = True) -> SpeechCorpus:
    """Every word of the world in each of `OTHER_VOICES`, twice. Made at first use, then read from the cache.

    Clip i is in voice `OTHER_VOICES[voices[i]]`; `held_out` is true for the validation voices.
    """
    jobs = corpus_jobs(OTHER_VOICES, LOWEST_PITCH, PITCH_RANGE)
    clips = cached_clips("other-voices", jobs, OTHER_VOICES, EXPECTED, progress)
    words, voices = [job[0] for job in jobs], [job[1] for job in jobs]
    held_out = np.array([OTHER_VOICES[voice] in VALIDATION_VOICES for voice in voices])
    return SpeechCorpus(clips, words, voices, held_out)


def load_other_phrases(n: int = 12_000, progress: bool = True) -> SpeechCorpus:
    """`n` phrases in these voices, each said once, and half of them short; `words` are their texts. Spoken at first use (a
    minute), then read from the cache.

    A text may name any scene: who judges must know all words. `held_out` is true for the validation voices.
    """
    rng, jobs, texts = np.random.default_rng((n, 41)), [], []
    for i in range(n):
        sort = None if i % 2 else ("caption", "answer", "request")[i // 2 % 3]
        _, text = sample_phrase(rng, ("train", "held-out")[rng.integers(2)], sort)
        voice = i % len(OTHER_VOICES)
        jobs.append((aloud(text), voice, LOWEST_PITCH + int(rng.integers(PITCH_RANGE)), int(SPEEDS[0] + rng.integers(SPEEDS[1]))))
        texts.append(text)
    clips = cached_clips("other-phrases", jobs, OTHER_VOICES, "", progress, longest=LONGEST)
    kept = [i for i, clip in enumerate(clips) if len(clip) < LONGEST * SAMPLE_RATE]             # the others were cut
    voices = [jobs[i][1] for i in kept]
    held_out = np.array([OTHER_VOICES[voice] in VALIDATION_VOICES for voice in voices])
    return SpeechCorpus([clips[i] for i in kept], [texts[i] for i in kept], voices, held_out)
