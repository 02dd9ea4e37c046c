"""Maximum logit, the library's."""

from attnlab.ood.adapter import Adapter


class MaxLogit(Adapter):
    """Maximum logit (1911.11132): -max_k z_k."""

    needs_fit = False
    takes = "logits"

    def __init__(self) -> None:
        super().__init__("MaxLogit")
