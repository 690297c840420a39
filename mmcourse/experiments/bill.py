"""What a training run costs: floating-point operations, device hours, money and energy.

Sources: 6 N D (Kaplan et al. 2020); its attention term and model FLOPs utilisation, MFU (Chowdhery et
al. 2022, PaLM, appendix B). Each device and each published run has its own, with a date.
"""
from dataclasses import dataclass


def training_flops(parameters: float, tokens: float, layers: int = 0, width: int = 0,
                   context: float = 0) -> float:
    """Floating-point operations of training `parameters` on `tokens`: 6 N D, and with the
    net's shape the attention to `context` tokens, 12 layers x width x context a token.

    Two for each weight forward (multiply, add), twice that backward. As PaLM counts,
    attention to tokens that come later is counted too, though its result is masked.
    """
    return (6 * parameters + 12 * layers * width * context) * tokens


# ---------------------------------------------------------------- what computes

@dataclass(frozen=True)
class Device:
    """Something that computes.

    Args:
        peak: FLOP/s that its maker promises, of dense matrices in the `precision`.
        watts: the most that it draws, without its host and its cooling.
        price: what an hour of one costs to rent, in US dollars: (cheap, dear).
        source: of the price, with the date at which it was read.
    """
    name: str
    peak: float
    precision: str
    watts: float
    price: tuple[float, float]
    source: str


_LISTS = "RunPod Community and AWS on demand, us-east-1; both read 2026-11-09"
# Peaks and watts: NVIDIA's data sheets of the A100 (2021), H100 (2023; without sparsity). The H800 is an
# H100 with slower links.
DEVICES = {
    "A100": Device("A100 SXM 80 GB", 312e12, "bfloat16", 400, (1.39, 3.43), _LISTS),
    "H100": Device("H100 SXM 80 GB", 989e12, "bfloat16", 700, (2.69, 6.88), _LISTS),
    "H800": Device("H800", 989e12, "bfloat16", 700, (2.0, 2.0), "arXiv 2412.19437, assumed there (2024)"),
}


def device_named(device: str | Device) -> Device:
    """A device, or the one of `DEVICES` that is called so. ValueError for another name."""
    if isinstance(device, Device):
        return device
    if device not in DEVICES:
        names = ", ".join(DEVICES)
        raise ValueError(f"no device is called {device!r}: take {names}, or a Device")
    return DEVICES[device]


def utilisation(flops: float, hours: float, device: str | Device) -> float:
    """Which share of its promised peak a device spent on a model: MFU."""
    return flops / (hours * 3600 * device_named(device).peak)


# ---------------------------------------------------------------- a bill

@dataclass(frozen=True)
class Bill:
    """What training would cost.

    Args:
        parameters: that each token goes through (of a mixture of experts the active ones).
        tokens: that are read, each as often as it is.
        mfu: which share of the device's peak goes into the model.
        layers, width, context: of the net; 0: attention is not counted.

    >>> round(Bill(7e9, 2e12, "A100", 0.5).hours)
    149573
    """
    parameters: float
    tokens: float
    device: str | Device = "H100"
    mfu: float = 0.4
    layers: int = 0
    width: int = 0
    context: float = 0

    def __post_init__(self):
        device_named(self.device)
        if self.parameters <= 0 or self.tokens <= 0 or not 0 < self.mfu <= 1:
            raise ValueError("parameters and tokens are positive, the MFU a share above 0, "
                             f"got {self.parameters}, {self.tokens} and {self.mfu}")

    @property
    def flops(self) -> float:
        """Floating-point operations."""
        return training_flops(self.parameters, self.tokens, self.layers, self.width,
                              self.context)

    @property
    def hours(self) -> float:
        """Device hours."""
        return self.flops / (self.mfu * device_named(self.device).peak * 3600)

    @property
    def dollars(self) -> tuple[float, float]:
        """US dollars at the cheap and at the dear price of an hour."""
        low, high = device_named(self.device).price
        return low * self.hours, high * self.hours

    @property
    def kwh(self) -> float:
        """Kilowatt hours of the devices at full power; hosts and cooling come on top."""
        return self.hours * device_named(self.device).watts / 1000

    def days(self, devices: int) -> float:
        """Days on so many devices at once. ValueError for fewer than one."""
        if devices < 1:
            raise ValueError(f"at least one device has to compute, got {devices}")
        return self.hours / devices / 24


# ---------------------------------------------------------------- what was published

@dataclass(frozen=True)
class Published:
    """A training run whose hours were told. `source`: where, with its year."""
    name: str
    parameters: float
    tokens: float
    device: str
    hours: float
    layers: int
    width: int
    context: int
    source: str
    note: str = ""

    def mfu(self, attention: bool = False) -> float:
        """The share of the peak that these hours mean, by 6 N D, with `attention` (if it is known) or without."""
        shape = (self.layers, self.width, self.context) if attention else ()
        return utilisation(training_flops(self.parameters, self.tokens, *shape), self.hours, self.device)


PUBLISHED = (
    Published("Llama 2 7B", 7e9, 2.0e12, "A100", 184_320, 32, 4096, 4096, "model card, 2023"),
    Published("Llama 2 70B", 70e9, 2.0e12, "A100", 1_720_320, 80, 8192, 4096, "model card, 2023"),
    Published("Chameleon 7B", 7e9, 9.2e12, "A100", 856_481, 32, 4096, 4096, "arXiv 2405.09818, table 2, 2024",
              "text and pictures as tokens; 4.4 T tokens, 2.1 times"),
    Published("Chameleon 34B", 34e9, 9.2e12, "A100", 4_282_407, 48, 8192, 4096, "arXiv 2405.09818, table 2, 2024",
              "shape taken from Code Llama 34B, whose size it shares"),
    Published("Llama 3.1 405B", 405e9, 15.6e12, "H100", 30_840_000, 126, 16384, 8192, "model card, 2024",
              "the paper says 38 to 43 % while it ran: the hours hold more than that"),
    Published("DeepSeek-V3", 37e9, 14.8e12, "H800", 2_664_000, 0, 0, 0, "arXiv 2412.19437, table 1, 2024",
              "37 of 671 B are active; in float8, whose peak is twice that of bfloat16; pre-training alone; "
              "its attention is of another kind"),
    Published("nanochat d34", 2.217e9, 88.68e9, "H100", 800, 34, 2176, 2048, "model card, 2025",
              "one node of 8 for about 100 hours; 47 % by its own log"),
)

# Nobody has said what GPT-4o is made of. From below: Epoch AI counts it among the models of more than 1e25
# operations (January 2025; for closed models a guess from benchmark scores, 3.8e25 for this one). From
# above: no model was known to pass 1e26 in 2024.
GPT4O_FLOPS = (1e25, 1e26)


def guessed_bill(flops: tuple[float, float] = GPT4O_FLOPS, device: str | Device = "H100",
                 mfu: tuple[float, float] = (0.35, 0.45)) -> dict[str, tuple[float, float]]:
    """From the least to the most that a run of about so many operations cost: `hours`,
    `dollars`, `kwh`."""
    low, high = (Bill(each / 6, 1, device, share)
                 for each, share in zip(flops, reversed(mfu), strict=True))
    return {"hours": (low.hours, high.hours), "dollars": (low.dollars[0], high.dollars[1]),
            "kwh": (low.kwh, high.kwh)}
