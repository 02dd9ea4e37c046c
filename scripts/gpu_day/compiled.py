"""Every component of every group traces into one graph, compiles, and takes two steps with the losses of eager mode."""

import time
from functools import partial
from typing import Any

import torch
import torch._inductor.config

from gpu_day.child import Day, Part


def parts(toy: bool) -> list[Part]:
    from tests.training.test_compile import combinations

    return [Part(" ".join(words), partial(component, words=words), 40) for words in combinations()]


def component(day: Day, *, words: list[str]) -> dict[str, Any]:
    """Forward pass and loss of these components as one graph, two steps of it beside two of eager mode, fp32."""
    from tests.training.test_compile import learner_of, steps

    gpu = day.options.torch_device.type == "cuda"
    small = ["logger=none", "data.limit=32", "data.batch_size=16", "ood=none", "model.width=4", "trainer.precision=32"]
    small += [f"paths.outputs={day.outputs}", *([] if gpu else ["trainer.accelerator=cpu"])]
    torch._dynamo.reset()
    torch._inductor.config.fallback_random = True  # eager mode's draws, so that the losses can be compared

    def losses(**options: Any) -> tuple[list[float], float]:
        learner, batch = learner_of([*small, *words])
        learner.to(batch[0].device)
        if options:
            learner.compile_objective(**options)
        start = time.time()
        return steps(learner, batch), time.time() - start

    eager, _ = losses()
    backend = {} if gpu else {"backend": "eager"}
    if not gpu:
        day.left_out.append("compiled: Inductor's kernels (the graphs are traced, and run in eager mode)")
    compiled, seconds = losses(fullgraph=True, **backend)
    apart = max(abs(a - b) / max(abs(a), 1e-6) for a, b in zip(eager, compiled))
    if apart > 5e-2:  # TF32, and sums in another order
        raise RuntimeError(f"compiled {compiled}, eager {eager}")
    return {"eager": eager, "compiled": compiled, "apart": apart, "first_steps_seconds": seconds}
