"""Erase and refine: Zoom-CAM in rounds, by a slow loop."""

import pytest
import torch

from attnlab.explainers.erase_refine import EraseAndRefine
from attnlab.explainers.zoom_cam import ZoomCAM
from tests.golden_numbers import golden
from tests.reference.explained import small


@pytest.mark.parametrize("values", [2**20, 7000])
def test_maps_are_a_slow_loop(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnlab.explainers.attribution.VALUES", values)
    stored, network = golden("explainers"), small().requires_grad_(False)
    found = EraseAndRefine(rounds=3, threshold=0.6).explain(network, stored["x"], stored["target"])
    for b in range(4):
        x, target = stored["x"][b : b + 1].clone(), stored["target"][b : b + 1]
        first, expected = network(x).logits.softmax(1)[0, target], torch.zeros(32, 32, dtype=torch.float64)
        for _ in range(3):
            share = min(1.0, float(network(x).logits.softmax(1)[0, target] / first))
            found_here = ZoomCAM().explain(network, x, target)[0, 0]
            expected = torch.maximum(expected, share * found_here)
            x[0, :, found_here >= 0.6] = 0
        torch.testing.assert_close(found[b, 0], expected, rtol=1e-9, atol=1e-11)


def test_one_round_is_zoom_cam_and_a_further_one_never_lowers_a_map() -> None:
    stored = golden("explainers")
    maps = [EraseAndRefine(rounds=rounds).explain(small(), stored["x"], stored["target"]) for rounds in (1, 2, 4)]
    torch.testing.assert_close(maps[0], ZoomCAM().explain(small(), stored["x"], stored["target"]))
    assert (maps[1] >= maps[0]).all() and (maps[2] >= maps[1]).all() and (maps[2] > maps[0]).any() and maps[2].max() <= 1


def test_what_is_refused() -> None:
    for options in ({"rounds": 0}, {"threshold": 0.0}):
        with pytest.raises(ValueError, match="must be at least 1 and threshold"):
            EraseAndRefine(**options)
