"""Explainers: maps of what a prediction rests on, `explainer=[gradcam]`, one method a file.

An explainer is any object with `explain(network, x_BCHW, target_B) -> map_B1HW`, larger = more relevant for the class `target_B`. It leaves
the network as it was: modes, weights, gradients, hooks. One that has to be fitted to the trained network or to the run's images also has
`prepare(trained)` (see `attnlab.evaluation.trained.Trained`), called once before the first `explain`. `signed = True` says that its maps
have a sign. Choosing one adds the evaluator `explanations`, which draws and scores the maps.
"""
