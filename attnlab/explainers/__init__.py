"""Explainers: maps of what a prediction rests on, `explainer=[gradcam]`, one method a file.

An explainer is any object with `explain(network, x_BCHW, target_B) -> map_B1HW`, larger = more relevant for the class `target_B`. It leaves
the network as it was: modes, weights, gradients, hooks. One that has to be fitted to the trained network or to the run's images has
`prepare(trained)` as well (`trained`: see `attnlab.evaluation.trained.Trained`), which is called once before the first `explain`. Choosing one adds the evaluator `explanations`, which draws and scores the maps.
"""
