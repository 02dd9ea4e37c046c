"""Every kind of golden number is read by some test: no prefix of the stored files is forgotten."""

import re
from pathlib import Path

import pytest

from tests.golden_numbers import golden

NAMELESS = {"explainers": {"x", "f", "sd"}}  # keys without a prefix, read beside the others
LEFT_OUT = {"xgradcam": "XGrad-CAM is not here"}


@pytest.mark.parametrize("name", ["core", "components", "explainers"])
def test_every_prefix_is_read(name: str) -> None:
    texts = "\n".join(path.read_text() for path in Path(__file__).parents[1].rglob("*.py"))
    prefixes = {key.split("_")[0] for key in golden(name)} - NAMELESS.get(name, set()) - set(LEFT_OUT)
    unread = sorted(prefix for prefix in prefixes if not re.search(rf"[\"'}}{{]{re.escape(prefix)}[_\"'{{]", texts))
    # `ires_{kind}` and `adapt{b}` are written as f-strings: what stands before the braces
    unread = [prefix for prefix in unread if not re.search(rf"[\"']{re.escape(prefix.rstrip('0123456789'))}\{{", texts)]
    assert not unread
