"""Any detector of pytorch-ood by its name. One that works on logits or pooled features needs no code, only a yaml:

gen: {_target_: attnlab.ood.pytorch_ood.PytorchOOD, detector: GEN, parameters: {gamma: 0.1}}
"""

import difflib
import inspect

from attnlab.ood.adapter import MODELS, VIEWS, Adapter


class PytorchOOD(Adapter):
    """Any detector of `pytorch_ood.detector` that a bank can feed, by name: Entropy, GEN, OpenMax, KLMatching, DICE, SHE, RMD, GMM, ...

    Args:
        detector: class name in `pytorch_ood.detector`. GMM is Gaussian discriminant analysis, one covariance a class (DDU, 2102.11582).
        parameters: its constructor's arguments. The model is not needed; `w`, `b` and `head` come from the bank's final layer.

    Raises ValueError: unknown detector or parameter (with the nearest name); a detector that needs the network itself or feature maps;
    a required parameter that is missing.
    """

    def __init__(self, *, detector: str, parameters: dict | None = None) -> None:
        import pytorch_ood.api
        import pytorch_ood.detector as library

        super().__init__(detector, **(parameters or {}))
        known = [name for name, value in vars(library).items() if inspect.isclass(value) and issubclass(value, pytorch_ood.api.Detector)]
        if detector not in known:
            raise ValueError(f"pytorch-ood has no detector {detector!r}; {_nearest(detector, known)}")
        cls = getattr(library, detector)
        if not any(hasattr(cls, f"predict_{view}") for view in VIEWS):
            raise ValueError(f"{detector} cannot work on logits or pooled features alone; a head can only use what a bank holds")
        filled = (*MODELS, "w", "b", "head")
        takes = {name: p for name, p in inspect.signature(cls).parameters.items() if name not in filled and p.kind != p.VAR_KEYWORD}
        if unknown := [name for name in self.parameters if name not in takes]:
            raise ValueError(f"{detector} has no parameter {unknown[0]!r}; {_nearest(unknown[0], list(takes))}")
        if missing := [name for name, p in takes.items() if p.default is p.empty and name not in self.parameters]:
            raise ValueError(f"{detector} needs the parameter {missing[0]!r}; give it under `parameters`")
        self.needs_fit = cls.requires_fit


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(known) or 'none'}"
