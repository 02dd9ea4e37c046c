"""attnlab: a bench for attention, regularisation, losses and uncertainty in CNNs; its methods one by one for any network of yours.

    from attnlab import RectAttention, MaxDropout, LearnToPayAttention, LargeMarginLoss, LensDepth, place, load

What is named here is imported when it is first asked for, and nothing before, so a method costs its own file and torch. All methods are
where the tree of the README says: `attnlab.attention`, `attnlab.regularizers`, `attnlab.losses`, `attnlab.ood`, `attnlab.explainers` ...
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnlab.attention.ltpa import LearnToPayAttention
    from attnlab.attention.position import PositionAttention
    from attnlab.attention.rect import RectAttention
    from attnlab.losses.large_margin import LargeMarginLoss
    from attnlab.metrics import aupr_in, aupr_out, auroc, ece, fpr95, fpr95_id
    from attnlab.network import Network, Output
    from attnlab.ood.bank import Bank
    from attnlab.ood.lens_depth import LensDepth
    from attnlab.ood.mahalanobis import Mahalanobis
    from attnlab.pipeline.load import load
    from attnlab.placement.attach import place, placed
    from attnlab.regularizers.maxdropout import MaxDropout

    __version__: str

WHERE = {
    "LearnToPayAttention": "attnlab.attention.ltpa",
    "PositionAttention": "attnlab.attention.position",
    "RectAttention": "attnlab.attention.rect",
    "LargeMarginLoss": "attnlab.losses.large_margin",
    **dict.fromkeys(("aupr_in", "aupr_out", "auroc", "ece", "fpr95", "fpr95_id"), "attnlab.metrics"),
    **dict.fromkeys(("Network", "Output"), "attnlab.network"),
    "Bank": "attnlab.ood.bank",
    "LensDepth": "attnlab.ood.lens_depth",
    "Mahalanobis": "attnlab.ood.mahalanobis",
    "load": "attnlab.pipeline.load",
    **dict.fromkeys(("place", "placed"), "attnlab.placement.attach"),
    "MaxDropout": "attnlab.regularizers.maxdropout",
}

__all__ = [
    "Bank",
    "LargeMarginLoss",
    "LearnToPayAttention",
    "LensDepth",
    "Mahalanobis",
    "MaxDropout",
    "Network",
    "Output",
    "PositionAttention",
    "RectAttention",
    "__version__",
    "aupr_in",
    "aupr_out",
    "auroc",
    "ece",
    "fpr95",
    "fpr95_id",
    "load",
    "place",
    "placed",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            found: Any = version("attnlab")
        except PackageNotFoundError:  # a checkout on the path, not installed
            found = "0+unknown"
    elif name in WHERE:
        from importlib import import_module

        found = getattr(import_module(WHERE[name]), name)
    else:
        from difflib import get_close_matches

        near = get_close_matches(name, __all__, n=3)
        raise AttributeError(f"module 'attnlab' has no attribute {name!r}{'; nearest: ' * bool(near)}{', '.join(near)}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
