"""One file a subcommand of scripts/bench.py: TITLE, and measure(options) -> (what goes into the JSON, the table to print)."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]  # a checkout works without installing it
