"""OOD heads on explanations: planted shifts, slow formulas, attacked images of a run."""

import pytest
import torch
from torch import Tensor, nn

from attnlab.explainers.gradient import Gradient
from attnlab.explainers.input_x_gradient import InputXGradient
from attnlab.network import Network
from attnlab.ood.bank import Bank
from attnlab.ood.evaluate import evaluate_heads
from attnlab.ood.explanation import Explanation
from attnlab.ood.explanation_autoencoder import ExplanationAutoencoder
from attnlab.ood.explanation_forest import ExplanationForest

HEADS = {
    "mahalanobis": Explanation(side=4),
    "autoencoder": ExplanationAutoencoder(side=4, hidden=4, epochs=30, lr=1e-2),
    "forest": ExplanationForest(side=4, trees=30),
}


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 3))
    return Network(backbone, shape=(1, 8, 8), num_classes=3).eval()


def images(num: int, seed: int, *, moved: bool = False) -> Tensor:
    """Noise in the upper half, or in the lower one."""
    x = 0.05 * torch.randn(num, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    x[:, :, slice(4, 8) if moved else slice(0, 4)] *= 20
    return x


def loader(num: int, seed: int, *, moved: bool = False) -> list[tuple[Tensor, Tensor]]:
    return [(part, torch.zeros(len(part), dtype=torch.long)) for part in images(num, seed, moved=moved).split(64)]


@pytest.mark.parametrize("name", HEADS)
def test_moved_explanations_are_found_and_others_of_their_kind_are_not(name: str, network: Network) -> None:
    sets = {"same": loader(150, 2), "moved": loader(150, 3, moved=True)}
    found = evaluate_heads(network, {name: HEADS[name]}, loader(400, 0), loader(150, 1), sets)
    assert not found.errors
    assert found.metrics[f"ood/{name}/moved/auroc"] > 0.9 and abs(found.metrics[f"ood/{name}/same/auroc"] - 0.5) < 0.1
    assert all(parameter.grad is None for parameter in network.parameters())


def test_vectors_are_pooled_maps_of_the_predicted_class(network: Network) -> None:
    x = images(5, 0)
    guessed = network(x).logits.argmax(1)
    for head, explainer in ((Explanation(side=4), InputXGradient()), (Explanation(side=2, explainer=Gradient()), Gradient())):
        expected = nn.functional.avg_pool2d(explainer.explain(network, x, guessed), 8 // head.side).flatten(1)
        torch.testing.assert_close(head.describe(network, x), expected)
    assert Explanation(side=16).describe(network, x).shape == (5, 64)  # never more cells than pixels


def test_the_distance_is_the_formula() -> None:
    torch.manual_seed(0)
    turn = torch.randn(5, 5, dtype=torch.float64)
    vectors, logits = torch.randn(60, 5, dtype=torch.float64) @ turn, torch.randn(60, 3, dtype=torch.float64)
    head = Explanation(components=5)
    bank = Bank(vectors, logits, torch.zeros(60).long())
    head.fit(bank)
    guessed = logits.argmax(1)
    standard = (vectors - vectors.mean(0)) / vectors.std(0, correction=0)
    away = torch.stack([v - standard[guessed == k].mean(0) for v, k in zip(standard, guessed)])
    torch.testing.assert_close(head.scale_D, vectors.std(0, correction=0))
    inverse = torch.linalg.inv(away.T @ away / 60)
    expected = torch.stack([a @ inverse @ a / 2 for a in away])  # a PCA of all components turns, and a distance does not feel it
    torch.testing.assert_close(head.score(bank), expected, rtol=1e-8, atol=1e-8)


def test_a_class_that_was_never_predicted_has_the_mean_of_all() -> None:
    vectors, none, logits = (
        torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double() + 5,
        torch.zeros(40).long(),
        torch.eye(4),
    )
    head = Explanation(components=3)
    head.fit(Bank(vectors, logits[2 * (torch.arange(40) % 2)], none))  # classes 0 and 2
    one, beyond = (head.score(Bank(vectors[:5], logits[[k] * 5], none[:5])) for k in (1, 3))
    torch.testing.assert_close(one, beyond)
    assert [made(side=3).side for made in (Explanation, ExplanationAutoencoder, ExplanationForest)] == [3, 3, 3]


def test_a_forest_is_a_function_of_its_seed() -> None:
    vectors = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double()
    bank = Bank(vectors, torch.zeros(40, 2), torch.zeros(40).long())
    scores = []
    for seed in (0, 0, 1):
        head = ExplanationForest(trees=3, seed=seed)
        head.fit(bank)
        scores.append(head.score(bank))
    assert torch.equal(scores[0], scores[1]) and not torch.equal(scores[0], scores[2])


def test_what_is_refused(network: Network) -> None:
    for wrong in ({"side": 0}, {"components": 0}):
        with pytest.raises(ValueError, match="side and components must be at least 1"):
            Explanation(**wrong)
    with pytest.raises(ValueError, match="hidden and epochs must be at least 1"):
        ExplanationAutoencoder(epochs=0)
    with pytest.raises(ValueError, match="trees must be at least 1"):
        ExplanationForest(trees=0)
    with pytest.raises(ValueError, match="must be fitted before it scores"):
        Explanation().score(Bank(torch.zeros(2, 4), torch.zeros(2, 3), torch.zeros(2).long()))
    with pytest.raises(ValueError, match="explanations are of images"):
        Explanation().describe(network, torch.zeros(2, 5))


def test_attacked_images_of_a_run(run) -> None:
    words = ["evaluator=[adversarial]", "evaluator.adversarial.num=60", "evaluator.adversarial.steps=2", "evaluator.adversarial.heads=true"]
    metrics = run(*words, "ood=[msp,explanation]", "ood.explanation.side=8")["metrics"]
    for head in ("msp", "explanation"):
        for attack in ("fgsm", "pgd"):
            assert 0 <= metrics[f"adversarial/{head}/{attack}/auroc"] <= 1
    assert not [key for key in metrics if key.startswith("ood/") or "/mean/" in key]
