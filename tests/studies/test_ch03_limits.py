"""What limits the picture tokenizer: a search that makes nothing worse, vectors that no code holds."""
import pytest
import torch

from mmcourse.studies import ch03_limits
from mmcourse.vqvae import VQVAE


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return VQVAE(codebook_size=64, dim=8, width=32).eval()


def test_a_search_makes_no_picture_worse_and_finds_better_ids(small):
    x = torch.rand(3, 3, 64, 64)
    ids = small.encode(x)

    def errors(tokens):
        return (small.decode(tokens) - x).square().sum((1, 2, 3))

    better = ch03_limits.search(small, x, ids, near=4)
    assert (errors(better) <= errors(ids) + 1e-4).all() and errors(better).sum() < errors(ids).sum()
    with pytest.raises(ValueError, match="multiples of 4"):
        ch03_limits.search(small, x[:, :, :, :40], ids[:, :, :5])


def test_a_windows_error_is_that_of_the_patches_around_it():
    errors = torch.rand(2, 8, 8)
    found = ch03_limits.windows(errors, 3, 2)
    assert found.shape == (2, 2, 2)
    assert found[1, 0, 0].item() == pytest.approx(errors[1, 1:5, 0:4].sum().item(), rel=1e-5)


def test_free_vectors_paint_better_than_the_encoders(small):
    x = torch.rand(3, 3, 64, 64)
    z = small.vectors(x)
    free = ch03_limits.free(small, x, z, steps=5)
    assert free.shape == z.shape and not free.requires_grad
    with torch.no_grad():
        before, after = ((ch03_limits.paint_vectors(small, v) - x).square().sum() for v in (z, free))
    assert after < before
    ids = small.encode(x)
    assert torch.allclose(ch03_limits.paint_vectors(small, small.quantizer.codebook[ids]), small.decode(ids), atol=1e-5)
