"""Chapter 05's exercises: two different mistakes never get the same answer, and other right ways are taken."""
import pytest
import torch

from mmcourse import exercises
from mmcourse.exercises import ch05
from mmcourse.transformer import next_token_loss

NAMES = [name for name in exercises.registered() if name.startswith("05.")]


@pytest.mark.parametrize("name", NAMES)
def test_two_mistakes_never_get_the_same_sentence(name):
    said = {}
    for answer in exercises.get(name).wrong:
        with pytest.raises(AssertionError) as refused:
            exercises.verdict(name, answer)
        said.setdefault(str(refused.value), []).append(answer.__name__)
    assert not [names for names in said.values() if len(names) > 1]


def test_gradients_may_be_forgotten_first_and_by_the_model():
    def at_the_start(model, optimizer, ids):
        optimizer.zero_grad()
        loss = next_token_loss(model, ids)
        loss.backward()
        optimizer.step()
        return float(loss)

    def by_the_model(model, optimizer, ids):
        loss = next_token_loss(model, ids)
        loss.backward()
        optimizer.step()
        model.zero_grad()
        return loss.item()
    assert exercises.verdict("05.training_step", at_the_start) and exercises.verdict("05.training_step", by_the_model)


def test_top_p_by_a_threshold_is_right_too():
    def threshold(logits, p):
        chances = logits.softmax(-1).sort(descending=True).values
        enough = (chances.cumsum(-1) >= p).int().argmax(-1, keepdim=True)                # the first that reaches p
        return logits.masked_fill(logits.softmax(-1) < chances.gather(-1, enough) - 1e-9, -torch.inf)
    assert exercises.verdict("05.top_p", threshold)


def test_the_message_names_the_scale_the_mask_and_the_axis():
    for answer, word in ((ch05._no_scale, "root of d"), (ch05._mask_after_softmax, "after the softmax"),
                         (ch05._over_columns, "columns"), (ch05._no_mask, "future")):
        with pytest.raises(AssertionError, match=word):
            exercises.verdict("05.attention_head", answer)
