"""Maximum softmax probability, the library's."""

from attnlab.ood.adapter import Adapter, positive


class MSP(Adapter):
    """Maximum softmax probability (1610.02136): -max_k softmax(z / temperature)_k, in [-1, 0]."""

    needs_fit = False
    takes = "logits"

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__("MaxSoftmax", t=positive("temperature", temperature))
