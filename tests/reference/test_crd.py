"""Contrastive distillation against RepDistiller's loss of scores, a loop over images with its memories, and two processes."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attnlab.distillation.crd import CRD, blocks, crd_nce
from tests.commands import Forked
from tests.reference.distilled import NUMBERS, agrees, output

LABELS = torch.tensor([0, 2, 1, 0, 2, 2, 1, 0, 1, 2, 0])
INDEX = torch.tensor([4, 0, 7, 2, 9, 5])


def term(labels: Tensor = LABELS, **options: object) -> CRD:
    torch.manual_seed(0)
    options = {"negatives": 5, "dim_embedded": 4, **options}
    return CRD({"features": (9,)}, {"features": (11,)}, lambda: labels, **options).double()


def loss_of(given: CRD, index: Tensor = INDEX, student: str = "kd_es") -> Tensor:
    return given(output(features=NUMBERS[student]), output(features=NUMBERS["kd_et"]), index)


def test_authors_numbers() -> None:
    agrees("crd_nce", lambda scores: crd_nce(scores[:, :, 0].log(), num_images=50), "crd_scores")


def test_a_score_that_exp_cannot_hold() -> None:
    log_scores = torch.tensor([[-300.0, 400.0]], requires_grad=True)
    crd_nce(log_scores, num_images=50).backward()
    torch.testing.assert_close(log_scores.grad, torch.tensor([[-1.0, 1.0]]))


def by_hand(given: CRD, memory: Tensor, log_z: list[float], negatives: Tensor) -> tuple[Tensor, list[list[Tensor]], Tensor]:
    """Loss, scores before Z of both anchors, and the memories after a batch: image by image."""
    num, momentum, after = len(given.order_N), given.momentum, memory.clone()
    loss, scores, rows = 0.0, [[], []], []
    for row, image in enumerate(INDEX.tolist()):
        ours = given.embed_student(NUMBERS["kd_es"][row])
        theirs = given.embed_teacher(NUMBERS["kd_et"][row])
        pair = [ours / ours.norm(), theirs / theirs.norm()]
        rows.append([image, [one.detach() for one in pair]])
        for which, one in enumerate(pair):
            for k, other in enumerate([image, *negatives[row].tolist()]):
                score = (one @ memory[1 - which, other] / given.temperature).exp()
                scores[which].append(score.detach())
                p = score / math.exp(log_z[which])
                noise = given.negatives / num
                loss = loss - (p / (p + noise + 1e-7) if k == 0 else noise / (p + noise + 1e-7)).log()
    for image, pair in rows:
        for which, one in enumerate(pair):
            mixed = momentum * memory[which, image] + (1 - momentum) * one
            after[which, image] = mixed / mixed.norm()
    return given.weight * loss / len(INDEX), scores, after


def test_two_steps_equal_a_loop_over_images(monkeypatch: pytest.MonkeyPatch) -> None:
    given, seen = term(momentum=0.3, temperature=0.2), []
    monkeypatch.setattr(given, "draw", lambda index: seen.append(CRD.draw(given, index)) or seen[-1])
    before = given.memory_2ND.clone()
    found = loss_of(given)
    (negatives,) = seen
    _, scores, after = by_hand(given, before, [0, 0], negatives)
    log_z = [math.log(float(sum(one)) / len(one) * len(LABELS)) for one in scores]
    torch.testing.assert_close(given.log_z_2, torch.tensor(log_z, dtype=torch.float64), rtol=1e-12, atol=0)
    for step in (0, 1):
        expected, _, after = by_hand(given, before, log_z, seen[-1])
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=0)
        torch.testing.assert_close(given.memory_2ND, after, rtol=1e-12, atol=1e-14)
        parameters = list(given.parameters())
        for one, other in zip(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        if not step:
            before, found = given.memory_2ND.clone(), loss_of(given)
    torch.testing.assert_close(given.log_z_2, torch.tensor(log_z, dtype=torch.float64), rtol=1e-12, atol=0)  # the first batch's


def test_scores_of_the_first_batch_are_one_in_n_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    given, means = term(), []
    monkeypatch.setattr("attnlab.distillation.crd.crd_nce", lambda log, **_: means.append(float(log.exp().mean())) or log.sum())
    with torch.no_grad():
        loss_of(given)
    assert means == pytest.approx([1 / len(LABELS)] * 2, rel=1e-12)


def test_negatives_are_all_images_of_other_classes_alike() -> None:
    given = term(negatives=20_000)
    drawn = given.draw(INDEX)
    for image, row in zip(INDEX.tolist(), drawn, strict=True):
        counts = torch.bincount(row, minlength=len(LABELS)) / len(row)
        others = LABELS[image] != LABELS
        torch.testing.assert_close(counts, others / others.sum(), rtol=0, atol=0.015)
    counts = torch.bincount(term(negatives=20_000, by_class=False).draw(INDEX[:1])[0], minlength=len(LABELS)) / 20_000
    torch.testing.assert_close(counts, (torch.arange(len(LABELS)) != INDEX[0]) / (len(LABELS) - 1), rtol=0, atol=0.015)


def test_an_unlabelled_image_is_a_class_of_its_own() -> None:
    order, first, size = blocks(torch.tensor([1, -1, 0, 1, -1]))
    assert order.tolist() == [2, 0, 3, 1, 4] and first.tolist() == [1, 3, 0, 1, 4] and size.tolist() == [2, 1, 1, 2, 1]


def test_the_memory_of_an_image_that_comes_twice_takes_the_mean_of_both() -> None:
    given = term(momentum=0.0)
    embedded = F.normalize(torch.randn(2, 3, 4, dtype=torch.float64), dim=2)
    given.remember(embedded, torch.tensor([3, 8, 3]))
    torch.testing.assert_close(given.memory_2ND[:, 3], F.normalize(embedded[:, [0, 2]].mean(1), dim=1))
    torch.testing.assert_close(given.memory_2ND[:, 8], embedded[:, 1])


def test_state_goes_on_and_only_training_changes_it() -> None:
    given, other = term(), term()
    assert given.memory_2ND.abs().max() <= math.sqrt(3 / 4) and given.memory_2ND.abs().max() > 0.8
    loss_of(given)
    state = given.state_dict()
    assert set(state) == {
        "memory_2ND",
        "log_z_2",
        *(f"embed_{who}.{name}" for who in ("student", "teacher") for name in ("weight", "bias")),
    }
    other.load_state_dict(state)
    found = []
    for one in (given, other):
        torch.manual_seed(5)
        found.append(loss_of(one, student="kd_et9"))
    assert found[0] == found[1] and torch.equal(given.memory_2ND, other.memory_2ND)
    kept = given.memory_2ND.clone()
    loss_of(given.eval())
    assert torch.equal(given.memory_2ND, kept)


def test_a_student_that_says_what_the_teacher_says_learns_it() -> None:
    """Every image's embedding is its own corner; the loss falls to where nothing tells positive and negative pairs apart any better."""
    corners = torch.eye(8, dtype=torch.float64)
    given = CRD({"features": (8,)}, {"features": (8,)}, lambda: torch.arange(8), negatives=7, dim_embedded=8).double()
    losses, optimizer = [], torch.optim.Adam(given.parameters(), lr=0.05)
    for _ in range(60):
        loss = given(output(features=corners), output(features=corners), torch.arange(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_errors() -> None:
    for options in ({"negatives": 0}, {"dim_embedded": 0}, {"temperature": 0.0}, {"momentum": 1.1}):
        with pytest.raises(ValueError, match="negatives and dim_embedded must be at least 1, temperature above 0"):
            term(**options)
    with pytest.raises(ValueError, match=r"places: crd compares one place with one of the teacher, got layer1, layer2"):
        CRD({"layer1": (4,), "layer2": (4,)}, {"layer1": (4,), "layer2": (4,)}, lambda: LABELS, places="layer*")
    with pytest.raises(ValueError, match="all 3 training images are of one; set by_class=false"):
        term(torch.tensor([2, 2, 2]))
    assert term(torch.tensor([2, 2, 2]), by_class=False).size_N.tolist() == [1, 1, 1]


# --- two processes, each with half of a batch ------------------------------------------------------------------------------------


def steps(given: CRD, rows: slice) -> list[object]:
    """Two steps' losses and gradients; the negatives of an image are the five after it, whoever draws them."""
    given.draw = lambda index: (index[:, None] + torch.arange(1, 6)) % len(LABELS)
    found: list[object] = []
    for student in ("kd_es", "kd_et9"):
        loss = given(output(features=NUMBERS[student][rows]), output(features=NUMBERS["kd_et"][rows]), INDEX[rows])
        found.append([loss.detach(), *torch.autograd.grad(loss, list(given.parameters()))])
    return [*found, given.memory_2ND, given.log_z_2]


def process(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(steps(term(), slice(3 * rank, 3 * rank + 3)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    ranks = [Forked(lambda rank=rank: process(rank, tmp_path)) for rank in (0, 1)]
    for one in ranks:
        error = one.communicate(timeout=120)[1]
        assert one.returncode == 0, error[-2000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    whole = steps(term(), slice(None))
    for ours, theirs, together in zip(first[:2], second[:2], whole[:2], strict=True):
        for one, other, both in zip(ours, theirs, together, strict=True):
            torch.testing.assert_close((one + other) / 2, both, rtol=1e-9, atol=1e-12)
    for one, other, both in zip(first[2:], second[2:], whole[2:], strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, both, rtol=1e-12, atol=1e-14)
