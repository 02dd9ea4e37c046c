"""Piece 2: how fast is a step, and what is in the way? Limits, ResNet-18 beside a hand-written loop, a profile, the step tax."""

from functools import partial
from typing import Any

import torch
from torch import nn

from gpu_day.child import Day, Part
from gpu_day.queue import State

MODES = {"eager": "off", "compiled": "default", "CUDA graphs": "reduce-overhead"}


def parts(toy: bool) -> list[Part]:
    return [
        Part("limits", limits, 30),
        *(Part(f"{name}, batch 128", partial(train_one, mode=mode, size=128), 60) for name, mode in MODES.items()),
        Part("share of peak", partial(share_of_peak, piece="step"), 1),
        Part("whole step as one graph, batch 128", partial(whole_step, size=128), 60, needs_gpu=True),
        Part("profile, compiled", partial(profile, mode="default"), 40),
        Part("step tax", step_tax, 40),
        Part("profile, CUDA graphs", partial(profile, mode="reduce-overhead"), 40),
        Part("profile, eager", partial(profile, mode="off"), 20),
    ]


def limits(day: Day) -> dict[str, Any]:
    from benches.limits import measure

    return measure(day.options)[0]


def step_tax(day: Day) -> dict[str, Any]:
    from benches.step_tax import measure

    return measure(day.options)[0]


def train_one(day: Day, *, mode: str, size: int, precision: Any = "auto") -> dict[str, Any]:
    """attnlab and the hand-written loop in one process, both bf16 autocast and channels_last, both compiled alike."""
    from benches.train import one

    if not day.gpu and mode != "off":
        day.left_out.append(f"step: torch.compile {mode} (a minute of Inductor on a CPU)")
        mode = "off"
    return one(day.options, mode=mode, precision=precision, batch_size=16 if day.toy else size)


def whole_step(day: Day, *, size: int) -> dict[str, Any]:
    """Forward, backward and optimizer of a compiled ResNet-18 captured as one CUDA graph and replayed: what launching less could gain."""
    from attnlab.backbones.resnet import resnet18
    from benches.common import resident, seconds, sgd

    settings = day.options.settings(compile="off")
    device, shape, times = settings.device, (3, 32, 32), 200
    x, y = next(iter(resident(2 * size, shape, batch_size=size, device=device, pad=4, flip=True)))
    network = resnet18(10, shape).to(device, memory_format=torch.channels_last)
    network.compile(dynamic=False)
    optimizer = sgd(list(network.parameters()))

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
            loss = nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)  # gradients keep their memory, which the graph writes to

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graph.replay()
    rates = sorted(size * times / seconds(lambda: [graph.replay() for _ in range(times)], device) for _ in range(5))
    return {"images_per_second": rates[2]}


def profile(day: Day, *, mode: str) -> dict[str, Any]:
    """What the device does in a step, its share of the step's time (below .8: launching is in the way), and the kernels that take most."""
    from benches.common import resident
    from benches.components import SHAPE, Step

    if not day.gpu and mode != "off":
        day.left_out.append(f"step: a profile of torch.compile {mode}")
        return {}
    size, times = (8, 2) if day.toy else (128, 20)
    settings = day.options.settings(compile=mode, max_epochs=10)
    batch = next(iter(resident(2 * size, SHAPE, batch_size=size, device=settings.device, pad=4, flip=True)))
    step = Step(None, batch, settings, times, width=4 if day.toy else 64)
    for _ in range(3):
        plain = step.seconds()
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if day.gpu else [])]
    with torch.profiler.profile(activities=kinds) as profiler:
        step.seconds()
    events = profiler.key_averages()
    if not day.gpu:
        day.left_out.append("step: share of the device's time (there is no device)")
        return {"seconds_a_step": plain, "calls": sum(event.count for event in events)}
    kernels = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6 / times
    most = sorted(kernels, key=lambda event: -event.self_device_time_total)[:15]
    return {
        "seconds_a_step": plain,
        "device_seconds_a_step": busy,
        "device_share": busy / plain,
        "launch_bound": busy / plain < 0.8,
        "kernels_a_step": sum(event.count for event in kernels) / times,
        "most": [
            {"kernel": event.key[:80], "us_a_step": event.self_device_time_total / times, "calls": event.count / times} for event in most
        ],
    }


def share_of_peak(day: Day, *, piece: str) -> dict[str, Any]:
    """What the training steps of a piece make of the best rate of arithmetic that `limits` saw."""
    from benches.limits import TRAINING_FLOP

    rates = day.found("step", "limits").get("flop_per_second")
    if not rates:
        raise RuntimeError("the part `limits` has not been done")
    found = {name: day.found(piece, name).get("attnlab_images_per_second") for name in State(day.out, piece).parts}
    return {name: rate * TRAINING_FLOP / max(rates.values()) for name, rate in found.items() if rate}
