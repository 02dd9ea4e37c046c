"""Groups: what each of the config groups may be, in one table. Whatever depends on a group reads it here.

A group takes one choice (`loss=ce`: the node itself has a `_target_`) or several (`attention=[rect,se]`: files keyed by their own name).
"""

from dataclasses import dataclass

KEYS = ("at", "how", "reads", "writes", "module")  # of a component that is placed in the network
HOWS = ("after", "before", "replace")
KINDS = ("activation", "conv", "norm")  # of places, for `at: {type: norm}`
RATES = "rate"  # the folder of configs that no one chooses: MODEL_OPTIMIZER.yaml is a model's own learning rate under an optimizer
LAYERS = ("experiment", "local")  # folders of configs whose files set keys of several groups


@dataclass(frozen=True)
class Group:
    """several: takes a list. partial: its node (of a placed component: its `module`) is built as a partial function, which the framework
    calls, so `_partial_: true` need not be said. placed: its components are put AT places of the network (or are penalties on its
    weights). optional: may be none. trains: can change the trained network. counts: can change a number, so that it is part of a run's
    address. ordered: the order of several choices can matter. usual: the choice that a run's name need not say. asked_by: the evaluator
    that uses what is chosen, and is added where it is not chosen itself.
    """

    name: str
    several: bool = False
    partial: bool = False
    placed: bool = False
    optional: bool = False
    trains: bool = True
    counts: bool = True
    ordered: bool = False
    usual: str | None = None
    asked_by: str | None = None


GROUPS = {
    group.name: group
    for group in (
        Group("data"),
        Group("model", partial=True),
        Group("init", optional=True, usual="none"),
        Group("attention", several=True, partial=True, placed=True, optional=True, ordered=True),
        Group("regularizer", several=True, partial=True, placed=True, optional=True, ordered=True),
        Group("loss", partial=True, usual="ce"),
        Group("distillation", several=True, optional=True),
        Group("algorithm", usual="supervised"),
        Group("callback", several=True, optional=True, ordered=True),
        Group("optimizer", partial=True),
        Group("schedule", partial=True),
        Group("trainer"),
        Group("ood", several=True, optional=True, trains=False),
        Group("evaluator", several=True, optional=True, trains=False),
        Group("explainer", several=True, optional=True, trains=False, asked_by="attnlab.evaluation.explanations.Explanations"),
        Group("logger", optional=True, trains=False, counts=False),
    )
}


def having(**wanted: bool) -> tuple[str, ...]:
    """The names of the groups of a kind: `having(several=True, placed=False)`."""
    return tuple(name for name, group in GROUPS.items() if all(getattr(group, key) == value for key, value in wanted.items()))
