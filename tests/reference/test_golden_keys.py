"""Every kind of golden number is read by some test: no prefix of the stored files is forgotten."""

import re
from pathlib import Path

import pytest

from tests.golden_numbers import golden

NAMELESS = {"explainers": {"x", "f", "sd"}}  # keys without a prefix, read beside the others
LEFT_OUT = {"xgradcam": "XGrad-CAM is not here"}
UNREAD = {  # single keys that no test compares with anything, and why
    "components": {
        "fbnhead_eval": "its inputs are not in the file",
        "ema_after2_p_1.running_mean": "their average leaves batch norm's statistics as they were; ours averages or copies them",
        "ema_after2_p_1.running_var": "the same",
    },
    "explainers": {
        "smoothgrad_scale": "inside of SmoothGrad, whose maps are compared",
        "aupc_st_chosen": "inside of AUPC; the logits of the next region hang on it, and are compared",
        "aupc_ig_chosen": "the same",
        "autvc_st_oldscipy": "Simpson's rule of SciPy before 1.11",
        "autvc_ig_oldscipy": "the same",
        "gradcampp_torchcam_relu3": "that version never divides by the denominator of alpha",
        "zoomcam_stepwise": "interpolates place by place; ours, as in the paper, once",
        "quantus_pixelflipping_ig": "takes away values of channels one by one, not pixels",
        "quantus_pixelflipping_ig_auc": "the same",
        "quantus_Complexity_ig": "the entropy of a map is no score here; sparseness is",
        "quantus_Complexity_gnl": "the same",
        "lrpg_Rk": "inside of the relevance of maps, which is compared",
        "lrpg_w_mean": "of the other of two released codes",
    },
}


@pytest.mark.parametrize("name", ["core", "components", "explainers"])
def test_every_prefix_is_read(name: str) -> None:
    texts = "\n".join(path.read_text() for path in Path(__file__).parents[1].rglob("*.py"))
    prefixes = {key.split("_")[0] for key in golden(name)} - NAMELESS.get(name, set()) - set(LEFT_OUT)
    unread = sorted(prefix for prefix in prefixes if not re.search(rf"[\"'}}{{]{re.escape(prefix)}[_\"'{{]", texts))
    # `ires_{kind}` and `adapt{b}` are written as f-strings: what stands before the braces
    unread = [prefix for prefix in unread if not re.search(rf"[\"']{re.escape(prefix.rstrip('0123456789'))}\{{", texts)]
    assert not unread


@pytest.mark.parametrize("name", list(UNREAD))
def test_unread_keys_are_keys(name: str) -> None:
    assert not set(UNREAD[name]) - set(golden(name))
