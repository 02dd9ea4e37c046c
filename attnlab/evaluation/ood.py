"""OOD: the chosen heads, fitted on the training images, score the test images and every OOD set."""

import logging

from attnlab.evaluation.near_far import group_means
from attnlab.evaluation.trained import Incomplete, Trained
from attnlab.ood.evaluate import evaluate_heads

log = logging.getLogger("attnlab")


class OOD:
    """`ood/<head>/<set>/<metric>` of the heads of `ood=[...]` on the sets of `data.ood`; see `attnlab.ood.evaluate.evaluate_heads`. Where
    these are a benchmark's, also `ood/<head>/near/<metric>` and `far`, see `attnlab.evaluation.near_far`.

    Nothing is done without heads or without sets. Raises Incomplete: what a head or a set cost; the other heads' metrics are kept.
    """

    takes_label_sets = True

    def run(self, trained: Trained) -> dict[str, float]:
        heads, sets = trained.heads, trained.data.ood
        if not heads or not sets:
            return {}
        log.info("scoring %s on %s", ", ".join(heads), ", ".join(sets))
        loaders = {name: trained.loader(name) for name in sets}
        with trained.settings.autocast():
            found = evaluate_heads(trained.network, heads, trained.loader("train"), trained.loader("test"), loaders, banks=trained.banks)
        trained.scores |= found.scores
        metrics = found.metrics | group_means(found.metrics, trained.data.ood_groups)
        if found.errors:
            raise Incomplete("; ".join(f"ood.{name}: {message}" for name, message in found.errors.items()), metrics)
        return metrics
