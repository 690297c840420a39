"""What training costs: 6 N D against counted operations, bills that add up, published hours as they were published."""
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmcourse.experiments.bill import (
    DEVICES,
    GPT4O_FLOPS,
    PUBLISHED,
    Bill,
    Device,
    guessed_bill,
    training_flops,
    utilisation,
)
from mmcourse.experiments.scaling import family, parameters
from mmcourse.judges.metrics import count_flops
from mmcourse.vocabulary import Vocabulary


def test_six_n_d_is_three_times_what_a_pass_is_counted_to_be():
    """Forward operations of the matrices are 2 N D; those of attention are 4 x width a token that is looked at, of all of them."""
    model, length = family(Vocabulary(1024), 64), 100
    ids = torch.randint(7, 1000, (3, length))
    with sdpa_kernel(SDPBackend.MATH):                      # the counter does not see the quicker ones of a CPU
        counted = count_flops(lambda: model(ids))
    N = parameters(model)["with head"] - sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
    assert 3 * counted == pytest.approx(training_flops(N, ids.numel(), len(model.blocks), model.width, length), rel=1e-6)


def test_a_bill_adds_up():
    core = Device("a core", 60e9, "float32", 10, (0.01, 0.02), "a test")
    bill = Bill(1e6, 1e6, core, mfu=0.5)
    assert bill.flops == 6e12 and bill.hours == pytest.approx(200 / 3600)
    assert bill.dollars == pytest.approx((bill.hours * 0.01, bill.hours * 0.02)) and bill.kwh == pytest.approx(bill.hours / 100)
    assert bill.days(2) == pytest.approx(bill.hours / 48)
    assert utilisation(bill.flops, bill.hours, core) == pytest.approx(0.5)


@pytest.mark.parametrize("wrong", [{"parameters": 0}, {"tokens": -1}, {"mfu": 0}, {"mfu": 40}, {"device": "H200"}])
def test_what_is_no_bill(wrong):
    with pytest.raises(ValueError, match="MFU a share|no device is called"):
        Bill(**{"parameters": 1e9, "tokens": 1e9, **wrong})


def test_nobody_computes():
    with pytest.raises(ValueError, match="at least one device"):
        Bill(1e9, 1e9).days(0)


def test_published_runs_use_a_third_to_a_half_of_the_peak():
    assert all(0.3 < run.mfu() < 0.5 and (run.layers == 0 or run.mfu() < run.mfu(attention=True) < 0.6) for run in PUBLISHED)
    by_name = {run.name: run for run in PUBLISHED}
    assert by_name["Chameleon 7B"].mfu() == pytest.approx(0.402, abs=5e-4)
    assert by_name["Chameleon 34B"].mfu() == pytest.approx(0.390, abs=5e-4)


def test_a_guess_is_a_range():
    guess = guessed_bill()
    assert all(low < high for low, high in guess.values())
    low, high = GPT4O_FLOPS
    assert guess["hours"][0] == pytest.approx(low / (0.45 * DEVICES["H100"].peak * 3600))
    assert guess["hours"][1] == pytest.approx(high / (0.35 * DEVICES["H100"].peak * 3600))
