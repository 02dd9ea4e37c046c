"""Piece 6 compiled: it takes two calls of nine minutes."""

from functools import partial

from gpu_day import components

parts = partial(components.parts, mode="default")
