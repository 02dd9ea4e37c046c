"""Terms: every named term of the loss, each given what it asks for by name."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from attnlab.config.asking import asked
from attnlab.network import Output


class LossTerms:
    """`loss(out, target)`, the `.penalty` of placed modules, and further terms (weight penalties, distillation), by name.

    A further term is called with what it asks for by name and gives a 0-d tensor, or a dict of them; a loss may ask for more than its two.
    """

    def __init__(self, loss: nn.Module, further: Mapping[str, Callable[..., Any]]) -> None:
        self.loss = loss
        self.loss_asks = asked(loss, skip=2)
        self.further = [(name, term, asked(term)) for name, term in further.items()]

    @property
    def asks(self) -> set[str]:
        return {*self.loss_asks, *(name for *_, names in self.further for name in names)}

    def who_asks(self, name: str) -> str:
        """The first term, else the loss, that asks for an offer."""
        return next((term for term, _, names in self.further if name in names), type(self.loss).__name__)

    def __call__(self, out: Output, offers: Mapping[str, Any]) -> dict[str, Tensor]:
        """The terms of what `offers["network"]` said of a batch."""
        offers = {**offers, "out": out, "target": out.target}
        terms = dict(self.loss(out, out.target, **{name: offers[name] for name in self.loss_asks}))
        terms |= offers["network"].penalties()
        for name, term, names in self.further:
            value = term(**{key: offers[key] for key in names})
            terms |= value if isinstance(value, Mapping) else {name: value}
        return terms
