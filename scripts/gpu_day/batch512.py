"""The step once more, at batch 512 and in fp32."""

from functools import partial

from gpu_day.child import Part
from gpu_day.step import MODES, share_of_peak, train_one, whole_step


def parts(toy: bool) -> list[Part]:
    return [
        *(Part(f"{name}, batch 512", partial(train_one, mode=mode, size=512), 60) for name, mode in MODES.items()),
        Part("share of peak", partial(share_of_peak, piece="batch512"), 1),
        Part("whole step as one graph, batch 512", partial(whole_step, size=512), 60, needs_gpu=True),
        Part("fp32, compiled, batch 128", partial(train_one, mode="default", size=128, precision=32), 60),
    ]
