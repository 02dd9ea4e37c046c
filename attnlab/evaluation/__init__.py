"""Evaluators: what is asked of a trained network, `evaluator=[ood,localisation,figures]`, in this order, one a file.

An evaluator is any object with `run(trained) -> {metric: number}`. `trained` (`attnlab.evaluation.trained.Trained`) has the network, the
data, `bank(split)`, `logits(split)`, the chosen heads and explainers, scores, history, and the metrics of the evaluators before; a pass
over a split is made once for all. Names of metrics are `<evaluator>/...`; a known one is refused. A picture is drawn at
`trained.picture(name, kind)`, which lists it in the record. An evaluator that has found only a part of its metrics raises `Incomplete`.
None can change the training: the network is put back as it was, and runs that differ in evaluators train once.
"""
