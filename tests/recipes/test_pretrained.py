"""The pre-training in the making: one table of rows, words and phrases in their shares, a run that goes on."""
import numpy as np
import pytest

from mmcourse import checkpoints
from mmcourse import recipes as all_recipes
from mmcourse.dataset import DIRECTIONS, Clips, training_edits
from mmcourse.recipes import pretrained as recipe
from mmcourse.vocabulary import Vocabulary
from mmcourse.world import edits, speech
from mmcourse.world.phrases import LONGEST
from mmcourse.world.scene import sample_scene
from tests.helpers import Letters

PHRASE = "say cat"


@pytest.fixture
def mixture():
    """The recipe's own kind of mixture, of random tokens: words of three frames, phrases of nine."""
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, "train") for _ in range(4)]
    nouns = sorted({scene.groups[0].noun for scene in scenes})
    words, phrases = Clips([np.arange(6) for _ in nouns], nouns), Clips([np.arange(18)], [PHRASE])
    return recipe.PhraseMixture(
        Vocabulary(100, 64, 64, 2), Letters(), scenes, rng.integers(64, size=(4, 64)), words, recipe.ROWS, recipe.TEXT_WEIGHT,
        edits=(training_edits(60), rng.integers(64, size=(60, 2, 64))), kinds=recipe.KINDS, people=words,
        people_share=recipe.SOUND.people, phrases=phrases, heard_phrases=phrases)


def test_the_table_asks_for_what_there_is():
    assert set(recipe.ROWS) == set(DIRECTIONS) and all(n > 0 for n in recipe.ROWS.values())
    assert set(recipe.KINDS) == {*edits.KINDS, "long sign", "noun of two"}
    assert set(recipe.PHRASES) < set(recipe.ROWS) and all(0 < share < 1 for share in recipe.PHRASES.values())


def test_phrases_are_said_and_written_down_in_their_share_and_only_where_no_word_is_asked_for(mixture):
    rng, text = np.random.default_rng(1), mixture.text(PHRASE)
    for name, share in recipe.PHRASES.items():
        rows = [mixture.sequence(name, rng) for _ in range(600)]
        assert np.mean([text in row for row in rows]) == pytest.approx(share, abs=0.05)
    assert {(len(audio.ids), said == text) for said, audio in rows} == {(6, False), (18, True)}, "clean clips are said"
    for name in ("audio->text->image", "audio->image", "image->audio", "image->text->audio"):
        assert not any(mixture.text(PHRASE) in mixture.sequence(name, rng) for _ in range(40))


def test_a_heard_phrase_is_stretched_and_confused(mixture):
    mixture.near = np.full((2, 64, 4), 63)
    heard = [mixture.overheard(np.random.default_rng(seed)) for seed in range(200)]
    phrases = [segment.ids for segment, text in heard if text == PHRASE]
    assert len({len(ids) for ids in phrases}) > 2 and any(63 in ids for ids in phrases)


def test_the_longest_phrase_fits():
    """Three seconds, played at .82 of their speed with 120 ms around (`augment`), every frame of them said twice at worst."""
    frames = np.ceil((LONGEST / 0.82 + 0.12) * 25)
    assert 2 * frames + 2 + 60 < recipe.CONTEXT
    assert LONGEST > speech.LONGEST


def test_a_run_goes_on_and_ends_where_it_is_told(mixture, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(all_recipes, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(recipe, "make_mixture", lambda: mixture)
    real = recipe.make_model
    monkeypatch.setattr(recipe, "make_model", lambda vocabulary, seed: real(vocabulary, seed, width=16, layers=1, heads=2))
    recipe.main(["--steps", "1"])
    history = recipe.main(["--steps", "3", "--out", str(tmp_path / "out")])
    assert [row["step"] for row in history.rows] == [0, 2] and "from here on" not in capsys.readouterr().out, "one schedule"
    entry = checkpoints.manifest(tmp_path / "out")["pretrained"]
    assert entry["steps"] == 3 and entry["config"]["context"] == recipe.CONTEXT and entry["human_digits"] is True
    assert set(entry["tokenizers"]) == {"bpe", "vqvae", "codec"} and entry["metrics"]["loss"] > 0
    assert len(list((tmp_path / "runs").iterdir())) == 1
    monkeypatch.setattr(recipe, "TEXT_WEIGHT", 1.0)
    recipe.main(["--steps", "1"])
    assert len(list((tmp_path / "runs").iterdir())) == 2, "other batches, another run"
