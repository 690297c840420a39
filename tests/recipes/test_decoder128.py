"""The large decoder starts from the weights of the small one that fit; its pool is the same each time."""
import torch

from mmcourse.diffusion import FlowDecoder
from mmcourse.recipes import decoder128 as recipe
from mmcourse.vqvae import VQVAE


def test_it_takes_over_the_weights_of_the_smaller_one_but_for_the_first_and_last_layer():
    small = FlowDecoder(code_dim=8, width=16, depth=1, time=16)
    torch.nn.init.normal_(small.conv_out[-1].weight)
    large = recipe.start_from(small)
    assert large.scale == 2 and large.config == {**small.config, "scale": 2}
    old = small.state_dict()
    differ = {name for name, w in large.state_dict().items() if w.shape != old[name].shape or not torch.equal(w, old[name])}
    assert differ == {"conv_in.weight", "conv_out.2.weight", "conv_out.2.bias"}


def test_the_pool_holds_large_pictures_and_the_tokens_of_small_ones():
    vqvae = VQVAE(codebook_size=32, dim=8, width=32).eval()
    pictures, tokens = recipe.make_pool(vqvae, 4)
    assert pictures.shape == (4, 3, 128, 128) and pictures.dtype == torch.uint8 and tokens.shape == (4, 8, 8)
    again, _ = recipe.make_pool(vqvae, 6)
    assert torch.equal(again[:4], pictures), "scene i is the same whatever the size of the pool"
