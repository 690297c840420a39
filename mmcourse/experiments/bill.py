"""What a training run costs: floating-point operations, hours, money, energy.

Sources: 6 N D (Kaplan et al. 2020), its attention term and model FLOPs utilisation, MFU (Chowdhery et al.
2022, PaLM, appendix B).
"""


def training_flops(parameters: float, tokens: float, layers: int = 0, width: int = 0, context: float = 0) -> float:
    """Floating-point operations of training `parameters` on `tokens`: 6 N D, and with the net's shape the
    attention of each token to `context` others, 12 layers x width x context a token.

    Two for each weight forward (multiply, add), twice that backward. As PaLM counts, attention to tokens
    that come later is counted too, though its result is masked.
    """
    return (6 * parameters + 12 * layers * width * context) * tokens
