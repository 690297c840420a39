"""A second judge of pictures: a small classifier trained on true pictures alone, and the Frechet distance in
its features.

It knows nothing of tokens, decoders or templates, so that it can disagree with
`mmcourse.judges.PictureReader`.
"""
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.checks import device_of
from mmcourse.judges.metrics import frechet_distance  # noqa: F401
from mmcourse.vqvae import ChannelNorm, ResidualBlock, check_images
from mmcourse.world.scene import BACKGROUNDS, NOUNS, WORLD, Scene, World


class PictureNet(nn.Module):
    """What stands on the left half, on the right half, and on which background: (B, 3, H, W) -> logits.

    `nouns` and `backgrounds` are the names that it knows, those of the course's world unless told otherwise.
    """

    def __init__(self, width: int = 48, nouns=NOUNS, backgrounds=tuple(BACKGROUNDS)):
        super().__init__()
        self.config = {"width": width, "nouns": list(nouns), "backgrounds": list(backgrounds)}
        self.known_nouns, self.known_backgrounds = tuple(nouns), tuple(backgrounds)
        self.grid = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.SiLU(),       # (B, 16, H / 2, W / 2)
            nn.Conv2d(16, width, 4, stride=2, padding=1),              # (B, C, H / 4, W / 4)
            ResidualBlock(width),
            nn.Conv2d(width, 2 * width, 2, stride=2),                  # (B, 2C, H / 8, W / 8)
            ResidualBlock(2 * width), ResidualBlock(2 * width),
            ChannelNorm(2 * width), nn.SiLU())
        self.nouns = nn.Linear(2 * width, len(nouns))
        self.background = nn.Linear(2 * width, len(backgrounds))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) in [0, 1] -> logits of nouns left and right, each (B, nouns), and (B, backgrounds)."""
        grid = self.grid(images * 2 - 1)                               # (B, 2C, H / 8, W / 8)
        left, right = (half.amax((2, 3)) for half in grid.chunk(2, 3))
        return self.nouns(left), self.nouns(right), self.background(grid.mean((2, 3)))

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 2 width): the mean of the last grid, for `frechet_distance`."""
        check_images(images)
        return torch.cat([self.grid(part * 2 - 1).mean((2, 3)) for part in images.to(device_of(self)).split(64)])

    @torch.no_grad()
    def read(self, images: torch.Tensor) -> list[tuple[str, str, str]]:
        """(B, 3, H, W) in [0, 1] -> (left noun, right noun, background) for each.

        "" stands where no noun is more likely than not.
        """
        check_images(images)
        def names(logits):
            best, which = logits.max(1)
            return [self.known_nouns[i] if x > 0 else "" for x, i in zip(best.tolist(), which.tolist())]
        out = []
        for part in images.to(device_of(self)).split(64):
            left, right, background = self(part)
            backgrounds = [self.known_backgrounds[i] for i in background.argmax(1).tolist()]
            out += list(zip(names(left), names(right), backgrounds))
        return out

    def accuracy(self, images: torch.Tensor, scenes: list[Scene]) -> float:
        """The share of pictures (B, 3, H, W) whose two halves both show exactly the nouns of their scene."""
        if len(images) != len(scenes) or not scenes:
            raise ValueError(f"one scene a picture, please: got {len(images)} pictures and {len(scenes)} "
                             "scenes")
        right = [said[:2] == halves(scene)[:2] for said, scene in zip(self.read(images), scenes)]
        return sum(right) / len(scenes)


def halves(scene: Scene) -> tuple[str, str, str]:
    """What `PictureNet.read` should say of a true picture: three or four objects stand on both halves."""
    left = [g.noun for g in scene.groups if g.place in ("left", "")]
    right = [g.noun for g in scene.groups if g.place in ("right", "")]
    return "".join(left), "".join(right), scene.background


def targets(scenes: list[Scene], world: World = WORLD) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `picture_loss` compares with: nouns on the left, on the right (B, nouns), backgrounds (B,).

    Nouns as 0 and 1, backgrounds as their numbers.
    """
    left, right = torch.zeros(len(scenes), len(world.nouns)), torch.zeros(len(scenes), len(world.nouns))
    for i, scene in enumerate(scenes):
        for target, noun in zip((left, right), halves(scene)[:2]):
            if noun:
                target[i, world.nouns.index(noun)] = 1
    return left, right, torch.tensor([list(world.backgrounds).index(scene.background) for scene in scenes])


def noun_accuracy(net: PictureNet, images: torch.Tensor, scenes: list[Scene]) -> float:
    """`PictureNet.accuracy`, as a function."""
    return net.accuracy(images, scenes)


def picture_loss(net: PictureNet, images: torch.Tensor, left: torch.Tensor, right: torch.Tensor,
                 background: torch.Tensor) -> dict:
    """Binary cross-entropy of each noun on each half, cross-entropy of the background (see `targets`)."""
    a, b, g = net(images)
    true = torch.cat([left, right])
    nouns = F.binary_cross_entropy_with_logits(torch.cat([a, b]), true, reduction="none").sum(1).mean()
    return {"loss": nouns + 0.3 * F.cross_entropy(g, background), "nouns": nouns.detach()}
