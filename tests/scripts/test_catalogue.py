"""docs/catalogue.md is what the yamls, docstrings and tests say."""

import subprocess
import sys

from tests import ROOT


def test_the_page_is_up_to_date() -> None:
    command = [sys.executable, "scripts/catalogue.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr or "docs/catalogue.md is not what `python scripts/catalogue.py` writes; run it"
