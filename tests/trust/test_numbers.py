"""Numbers that are no numbers do not spread, and what a configuration leaves to the machine is in the record."""

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from torch import nn

from attnlab import metrics
from attnlab.losses.large_margin import LargeMarginLoss
from attnlab.network import Output
from attnlab.ood.bank import Bank
from attnlab.ood.mahalanobis import Mahalanobis
from attnlab.ood.vim import ViM
from attnlab.table import main as table_main
from attnlab.tables import statistics
from attnlab.tables.model import Paper
from tests.conftest import POINTS
from tests.trust.test_nothing_runs import write_table


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_bad_feature_stays_out_of_the_means_of_every_class(bad: float) -> None:
    torch.manual_seed(0)
    fc, y = nn.Linear(4, 3).double(), torch.tensor([0, 0, 1, 1, 2])
    f = torch.randn(5, 4, dtype=torch.float64)
    poisoned = f.clone()
    poisoned[3, 2] = bad
    found, wanted = (LargeMarginLoss(3, 4).double().train() for _ in range(2))
    terms = found(Output(fc(poisoned), poisoned, fc, y), y)
    wanted(Output(fc(f[[0, 1, 2, 4]]), f[[0, 1, 2, 4]], fc, y[[0, 1, 2, 4]]), y[[0, 1, 2, 4]])
    torch.testing.assert_close(found.means, wanted.means, rtol=0, atol=1e-15)
    assert found.seen.all() and not terms["ce"].isfinite()  # and the epoch says so
    alone = LargeMarginLoss(3, 4).double().train()
    poisoned[2, 0] = bad  # the class has no other image
    alone(Output(fc(poisoned), poisoned, fc, y), y)
    assert alone.seen.tolist() == [True, False, True] and alone.means.isfinite().all()


def make_bank(seed: int = 0, scale: float = 1.0) -> Bank:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(60, 8, generator=generator) @ torch.randn(8, 8, generator=torch.Generator().manual_seed(9))
    fc = nn.Linear(8, 4).double()
    with torch.no_grad():
        fc.weight.copy_(torch.randn(4, 8, generator=torch.Generator().manual_seed(7)))
        logits = fc.weight @ features.double().T
        fc.bias.zero_()
        fc.weight /= scale
    labels = torch.randint(4, (60,), generator=generator)
    return Bank(features.double() * scale, logits.T.contiguous(), labels, fc)


def test_mahalanobis_takes_no_unlabelled_image_for_a_class() -> None:
    bank, unlabelled = make_bank(), make_bank(5)
    one, other = Mahalanobis(), Mahalanobis()
    one.fit(bank)
    both = (torch.cat([getattr(bank, key), getattr(unlabelled, key)]) for key in ("features", "logits", "labels"))
    features, logits, labels = both
    labels = torch.cat([bank.labels, torch.full_like(unlabelled.labels, -1)])
    other.fit(Bank(features, logits, labels))
    torch.testing.assert_close(other.score(unlabelled), one.score(unlabelled), rtol=0, atol=0)
    with pytest.raises(ValueError, match="no labelled sample"):
        other.fit(dataclasses.replace(bank, labels=torch.full_like(bank.labels, -1)))


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e3])
def test_vim_does_not_depend_on_the_scale_of_features(scale: float) -> None:
    """alpha undoes it, and W / scale gives the same logits."""
    scores = []
    for size in (1.0, scale):
        head = ViM(principal_dim=5)
        head.fit(make_bank(0, size))
        scores.append(head.score(make_bank(1, size)))
    torch.testing.assert_close(scores[1].double(), scores[0].double(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["accuracy", "nll", "brier", "ece", "adaptive_ece"])
def test_a_row_of_nothing_but_minus_infinity_is_no_distribution(name: str) -> None:
    logits = torch.zeros(3, 2)
    logits[1] = -torch.inf
    with pytest.raises(ValueError, match="logits of 1 of 3 samples are all -inf"):
        getattr(metrics, name)(logits, [0, 1, 0])
    logits[1, 0] = 0.0  # one class can be ruled out
    assert getattr(metrics, name)(logits, [0, 0, 0]) >= 0


def test_the_rule_of_the_verdict_as_docs_tables_md_states_it() -> None:
    """t(n - 1) sqrt(s^2/n + p^2/m): p the paper's, also where m is 1; ours where it gives none. Below three seeds there is no verdict."""
    t = statistics.t_quantile(4)
    assert statistics.noise(5, 0.2, paper_sd=0.6, paper_runs=1) == pytest.approx(t * (0.04 / 5 + 0.36) ** 0.5, rel=1e-12)
    assert statistics.noise(5, 0.2, paper_runs=1) == pytest.approx(t * 0.2 * (1 / 5 + 1) ** 0.5, rel=1e-12)
    for sd in (None, 0.5):
        for values in ([1.0], [1.0, 1.1]):
            assert statistics.verdict(values, Paper(1.0, sd), margin=0.3, paper_runs=5) == "too few seeds"


def test_what_the_machine_adds_is_in_the_record_and_a_table_names_it_where_it_differs(run: Callable[..., dict], tmp_path) -> None:
    words = [["seed=0"], ["seed=1"]]
    for word in words:
        made = run(*word, "trainer.max_epochs=1", base=POINTS)
    assert made["device_kind"] in ("cpu", "cuda") and made["threads"] == 1 and isinstance(made["precision"], str)
    table, out = write_table(tmp_path, common=[*POINTS, "trainer.max_epochs=1"], seeds=[0, 1]), tmp_path / "out"

    def notes() -> str:
        assert table_main([f"table={table}", f"paths.outputs={run.outputs}", f"out={out}", "format=md"]) == 0
        return out.read_text()

    assert "their address does not tell" not in notes()
    path = made["folder"] / "result.json"
    result = json.loads(path.read_text()) | {"threads": 7, "device_kind": "cuda", "precision": "bf16"}
    del result["digest"]
    path.write_text(json.dumps(result))
    found = notes()
    assert found.count("runs of this table differ in what their address does not tell") == 3
    assert "threads: 1 (1 runs); 7 (1 runs)" in found and "kind of device: " in found
