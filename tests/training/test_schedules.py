"""Schedules against torch's own schedulers, at every step."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, MultiStepLR, OneCycleLR, StepLR

from attnlab.training.schedules import constant, cosine, multistep, one_cycle, step_decay

LR = 0.1


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)


def rates(factor, num_steps):
    """The rates used at each step, through LambdaLR as the learner does it."""
    opt = optimizer()
    scheduler = LambdaLR(opt, factor)
    rates = []
    for _ in range(num_steps):
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        scheduler.step()
    return rates


def torch_rates(make, num_steps, every=1):
    opt = optimizer()
    scheduler = make(opt)
    rates = []
    for step in range(num_steps):
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return rates


@pytest.mark.parametrize(
    "milestones, epochs", [([6, 12, 16], [6, 12, 16]), ([0.3, 0.6, 0.8], [6, 12, 16]), ([0, 3, 3, 50], [0, 3, 3, 50]), ([], [])]
)
def test_multistep_is_multisteplr_per_epoch(milestones, epochs):
    per_epoch, total = 7, 20 * 7
    ours = rates(multistep(milestones=milestones, gamma=0.2, total_steps=total, steps_per_epoch=per_epoch), total)
    assert ours == pytest.approx(torch_rates(partial(MultiStepLR, milestones=epochs, gamma=0.2), total, every=per_epoch), rel=1e-12)


def test_the_papers_milestones_to_the_step():
    total, per_epoch = 200 * 391, 391
    fractions = multistep(milestones=[0.3, 0.6, 0.8], total_steps=total, steps_per_epoch=per_epoch)
    for n, epoch in enumerate([60, 120, 160]):
        assert fractions(epoch * per_epoch - 1) == pytest.approx(0.2**n)
        assert fractions(epoch * per_epoch) == pytest.approx(0.2 ** (n + 1))


def test_multistep_takes_part_of_an_epoch():
    factor = multistep(milestones=[1.5], gamma=0.1, total_steps=40, steps_per_epoch=10)
    assert [factor(14), factor(15)] == [1.0, 0.1]


@pytest.mark.parametrize("every", [1, 3, 2.5])
def test_step_decay_is_steplr(every):
    total, per_epoch = 60, 6
    ours = rates(step_decay(every=every, gamma=0.5, total_steps=total, steps_per_epoch=per_epoch), total)
    assert ours == pytest.approx(torch_rates(partial(StepLR, step_size=int(every * per_epoch), gamma=0.5), total), rel=1e-12)


@pytest.mark.parametrize("final", [0.0, 0.05])
def test_cosine_is_cosineannealinglr(final):
    total = 90
    ours = rates(cosine(final=final, total_steps=total, steps_per_epoch=9), total)
    assert ours == pytest.approx(torch_rates(partial(CosineAnnealingLR, T_max=total, eta_min=final * LR), total), abs=1e-12)


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("peak, start, final, total", [(0.3, 0.04, 1e-4, 100), (0.25, 0.2, 0.01, 37), (0.1, 1 / 25, 4e-6, 64)])
def test_one_cycle_is_onecyclelr(anneal, peak, start, final, total):
    make = partial(
        OneCycleLR, max_lr=LR, total_steps=total, pct_start=peak, div_factor=1 / start, final_div_factor=start / final,
        anneal_strategy=anneal, cycle_momentum=False,
    )  # fmt: skip
    ours = one_cycle(peak=peak, start=start, final=final, anneal=anneal, total_steps=total, steps_per_epoch=10)
    expected = torch_rates(make, total - 1)  # torch warns at its own last step
    assert rates(ours, total)[:-1] == pytest.approx(expected, rel=1e-9)
    assert ours(total - 1) == pytest.approx(final)
    assert ours(total) == pytest.approx(final)  # LambdaLR asks once more after the last step


def test_constant():
    assert set(rates(constant(total_steps=5, steps_per_epoch=5), 5)) == {LR}


@pytest.mark.parametrize("make", [constant, cosine, partial(multistep, milestones=[3]), step_decay])
def test_warmup_rises_linearly_to_the_schedule(make):
    with_warmup = make(warmup=2.0, total_steps=100, steps_per_epoch=5)
    assert [with_warmup(step) for step in range(10)] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert with_warmup(10) == 1.0


def test_cosine_ends_at_final_and_stays():
    factor = cosine(warmup=1.0, final=0.1, total_steps=30, steps_per_epoch=10)
    assert factor(30) == pytest.approx(0.1)
    assert factor(1000) == pytest.approx(0.1)


MAKERS = {
    "constant": constant,
    "cosine": partial(cosine, final=0.01),
    "one_cycle": one_cycle,
    "multistep": partial(multistep, milestones=[0.3, 0.6, 0.8]),
    "step_decay": step_decay,
}


@pytest.mark.parametrize("name", MAKERS)
def test_pickles_copies_and_checkpoints(name, tmp_path):
    factor = MAKERS[name](total_steps=50, steps_per_epoch=10)
    for other in (pickle.loads(pickle.dumps(factor)), copy.deepcopy(factor)):
        assert [other(step) for step in range(50)] == [factor(step) for step in range(50)]
    scheduler = LambdaLR(optimizer(), factor)
    torch.save(scheduler.state_dict(), tmp_path / "s.ckpt")
    scheduler.load_state_dict(torch.load(tmp_path / "s.ckpt", weights_only=True))


@given(
    name=st.sampled_from(sorted(MAKERS)),
    total=st.integers(1, 300),
    per_epoch=st.integers(1, 50),
    warmup=st.floats(0, 5),
    step=st.integers(0, 400),
)
def test_factor_is_always_a_fraction(name, total, per_epoch, warmup, step):
    options = {} if name == "one_cycle" else {"warmup": warmup}
    factor = MAKERS[name](total_steps=total, steps_per_epoch=per_epoch, **options)(step)
    assert 0 < factor <= 1 and math.isfinite(factor)


RUN = {"total_steps": 100, "steps_per_epoch": 10}


@pytest.mark.parametrize(
    "make, message",
    [
        (partial(multistep, milestones=[-1, 3], **RUN), "sorted"),
        (partial(multistep, milestones=[6, 3], **RUN), "sorted"),
        (partial(multistep, milestones=[float("nan")], **RUN), "sorted"),
        (partial(multistep, milestones=[1], **RUN), "epoch 1 or the end"),
        (partial(multistep, milestones=[3], gamma=0, **RUN), "gamma must be above 0"),
        (partial(multistep, milestones=[3], warmup=-1, **RUN), "warmup"),
        (partial(step_decay, every=0, **RUN), "every"),
        (partial(step_decay, every=0.01, **RUN), "every"),
        (partial(cosine, final=1.5, **RUN), "final must be in"),
        (partial(cosine, warmup=float("inf"), **RUN), "warmup"),
        (partial(one_cycle, peak=2, **RUN), "peak must be in"),
        (partial(one_cycle, start=-0.1, **RUN), "start must be in"),
        (partial(one_cycle, anneal="exp", **RUN), "anneal must be"),
        (partial(constant, total_steps=0, steps_per_epoch=1), "total_steps"),
        (partial(cosine, total_steps=float("inf"), steps_per_epoch=1), "total_steps"),
        (partial(one_cycle, total_steps=5, steps_per_epoch=0), "steps_per_epoch"),
    ],
)
def test_impossible_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_cosine_that_ends_where_it_begins_is_constant() -> None:
    factor = cosine(final=1.0, total_steps=8, steps_per_epoch=1)
    assert [factor(step) for step in range(8)] == [1.0] * 8
