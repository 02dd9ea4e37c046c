"""Supervised learning: today's step."""


class Supervised:
    """One forward and one backward pass a step, one update."""
