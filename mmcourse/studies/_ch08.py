"""What the studies of chapter 08 share: from drafts to pictures, for a painter of the recipe."""
import torch

from mmcourse.experiments.sign_data import LATENTS, draft, to_pictures
from mmcourse.recipes.sign_painters import Case, Size, data, tokenizer


def picture(drafts: torch.Tensor, case: Case, size: Size) -> torch.Tensor:
    """Drafts of a case -> pictures (B, 3, 32, 64)."""
    spread = data(case.moved, size).spread if case.arm == LATENTS else None
    return to_pictures(drafts, case.arm, tokenizer(case.moved, size), spread)


def paint(model, case: Case, size: Size, prompts: torch.Tensor, setting: dict, seed: int) -> torch.Tensor:
    """Pictures (B, 3, 32, 64) for prompts (B, P)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([picture(draft(model, case.arm, part, **setting, generator=generator), case, size)
                      for part in prompts.split(128)])
