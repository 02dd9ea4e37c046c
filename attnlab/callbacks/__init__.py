"""Callbacks: what acts between steps and epochs. A callback is any object with some of these methods:

    on_fit_start(learner)            once, when everything is on its device; then `load_state_dict` where a run goes on
    on_epoch_start(learner, epoch)
    on_step(learner, step)           after every `every`-th step (an attribute; 0: never, and the loop does not look)
    on_gradients(learner, step)      in every step, on the gradients of one update, unscaled and not yet clipped
    on_epoch_end(learner, row)       `row`: the epoch's figures so far; what is put into it is logged
    tested(network) -> network       the network that is tested instead; what `callback=ema` averages, say
    measured() -> {parameter: value}       what it measured on this machine and trains by; as overrides, that repeats the run
    state_dict(), load_state_dict(state)   tensors and plain values; in the checkpoint, so that a run resumes bit for bit

`order` (an attribute, 0 by default) places it at an epoch's end: averages come before VALIDATION, what reacts to its figures after it
(and says `reads_row = True`), the record after that, the checkpoint last. `needs = ("val",)`: splits that it cannot do without.
`single = True`: it changes or copies the weights of `learner.network`, and knows of no networks trained beside it.
Lightning's own callbacks hear of epochs and checkpoints alone: our step is not Lightning's.
"""

VALIDATION, REACTING, RECORDING, CHECKPOINT = 100, 200, 300, 400
