"""Tests, a folder a package of attnlab; `reference/` holds every method against a slow loop, another library or its authors' numbers."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
