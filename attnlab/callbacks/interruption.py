"""Interruption: SIGTERM and Ctrl-C in a run of several processes."""

import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class Interruption:
    """The first process of ddp is interrupted, and ends the others, which hear of no signal.

    Lightning's own handler of SIGTERM tells the others by a collective, between steps that are not the same in all of them: they wait for
    one another until its time is out, half an hour. And Ctrl-C in a terminal goes to all at once: one that ends before the first looks to
    it as a failure. Lightning puts the old handlers back after `fit`.
    """

    def on_fit_start(self, learner: "Learner") -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler if learner.global_rank == 0 else signal.SIG_IGN)
