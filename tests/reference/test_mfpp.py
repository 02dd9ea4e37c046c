"""MFPP against the authors' masks and maps, and its laws."""

import pytest
import torch
from torch import Tensor, nn

from attnlab.explainers.attribution import blurred
from attnlab.explainers.mfpp import Mfpp, cropped_masks
from attnlab.explainers.superpixels import grid_segments
from tests.golden_numbers import golden
from tests.reference.explained import small


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


def test_cropped_masks_are_the_authors(stored: dict[str, Tensor]) -> None:
    found = []
    for level, segments in enumerate(stored["mfpp_segments"].long()):
        kept = (stored["mfpp_draw"][level] == 0)[None, : int(segments.max()) + 1].expand(32, -1)
        found.append(cropped_masks(segments, kept, stored["mfpp_crop_wh"][level].flip(1)))
    torch.testing.assert_close(torch.cat(found), stored["mfpp_masks"], rtol=0, atol=3e-6)


def test_maps_are_the_authors(stored: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnlab.explainers.attribution.VALUES", 20000)
    explainer = Mfpp(authors_crop=True)
    for c in range(5):
        found = explainer.explain(small(), stored["x"][:1], torch.tensor([c]), masks_NHW=stored["mfpp_masks"])
        torch.testing.assert_close(found[:, 0], stored["mfpp_saliency"][:, c], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("authors_crop", [False, True])
def test_masks_are_split_evenly_and_keep_their_share(stored: dict[str, Tensor], authors_crop: bool) -> None:
    explainer = Mfpp(num_masks=3200, num_levels=3, keep=0.3, authors_crop=authors_crop)
    chunks = list(explainer.masks(list(stored["mfpp_segments"].long()), 500))
    assert max(map(len, chunks)) <= 500 and sum(map(len, chunks)) == 3200
    masks = torch.cat(chunks)
    assert masks.min() >= 0 and masks.max() <= 1 and abs(float(masks.mean()) - 0.3) < 0.03
    if not authors_crop:  # constant on every fragment
        values = masks[:1066][:, stored["mfpp_segments"][0] == 5]
        assert torch.equal(values, values[:, :1].expand_as(values)) and len(masks[:1066].unique(dim=0)) > 1000
    else:
        assert len(masks[:32].unique(dim=0)) == 32


class Fragment(nn.Module):
    """p(class 1) is 1 where the top left quarter is shown, else 0."""

    def forward(self, x: Tensor) -> Tensor:
        score = 40 * (x[:, 0, :4, :4].mean((1, 2)) - 0.5)
        return torch.stack([torch.zeros_like(score), score], 1)


def test_the_fragment_that_counts_has_twice_the_relevance_of_the_others() -> None:
    segments = [[grid_segments(8, 8, 4)], [grid_segments(8, 8, 4)]]
    found = Mfpp(num_masks=4000).explain(Fragment(), torch.ones(1, 1, 8, 8), torch.tensor([1]), segments_LBHW=segments)[0, 0]
    assert abs(float(found[:4, :4].mean()) - 1) < 0.04 and abs(float(found[4:, 4:].mean()) - 0.5) < 0.04


def test_a_map_does_not_depend_on_its_batch_and_the_seed_decides(stored: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    x, target, options = stored["x"][:2], stored["target"][:2], {"num_masks": 40, "num_levels": 2, "num_segments": 9}
    whole = Mfpp(**options).explain(small(), x, target)
    monkeypatch.setattr("attnlab.explainers.attribution.VALUES", 20000)
    torch.testing.assert_close(Mfpp(**options).explain(small(), x[1:], target[1:]), whole[1:], rtol=1e-10, atol=1e-13)
    assert not torch.allclose(Mfpp(seed=1, **options).explain(small(), x, target), whole)


def test_smoothing_keeps_the_mean() -> None:
    masks = (torch.rand(2, 1, 5, 30, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert blurred(masks, 0.0) is masks
    found = blurred(masks, 2.0)
    assert found.shape == masks.shape and found.std() < masks.std() and abs(float(found.mean() - masks.mean())) < 0.1
    torch.testing.assert_close(blurred(torch.ones(1, 1, 4, 4), 3.0), torch.ones(1, 1, 4, 4))


def test_what_is_refused() -> None:
    for options in ({"num_masks": 3}, {"keep": 0.0}, {"smoothing": -1.0}):
        with pytest.raises(ValueError, match="must be"):
            Mfpp(**options)
