"""Tokenizers that learn from moved pictures: with codes of any number, and without."""
import torch

from mmcourse.studies import ch03_moved
from mmcourse.vqvae import matte


def test_without_codes_the_vectors_pass_as_they_are():
    model, x = ch03_moved.make(None, 3), torch.rand(2, 3, 64, 64)
    z = model.encoder(matte(x) * 2 - 1)
    torch.testing.assert_close(model(x)[0], model.decoder(z) + 0.5)


def test_an_arm_is_what_its_name_says():
    assert len(ch03_moved.ARMS) == 10
    for name, arm in ch03_moved.ARMS.items():
        assert name.startswith(f"{arm.codes or 'no'} codes, context {arm.context}")
        assert arm.times == (4 if "four times" in name else 2 if "twice" in name else 1)
        model = ch03_moved.make(arm.codes, arm.context)
        assert model.config["context"] == arm.context and model.vocab_size == (arm.codes or 1)
