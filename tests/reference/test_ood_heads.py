"""Every head of the pytorch-ood adapter against its formula in fp64, written out; banks and their evaluation.

The formulas guard against the library: one of its releases turned Mahalanobis into chance.
"""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from sklearn.neighbors import NearestNeighbors
from torch import nn

from attnlab import metrics
from attnlab.network import Output
from attnlab.ood.adapter import final_linear
from attnlab.ood.bank import Bank, as_bank
from attnlab.ood.energy import Energy
from attnlab.ood.evaluate import evaluate_heads
from attnlab.ood.extract import extract, extract_views
from attnlab.ood.knn import KNN
from attnlab.ood.mahalanobis import Mahalanobis
from attnlab.ood.max_logit import MaxLogit
from attnlab.ood.msp import MSP
from attnlab.ood.odin import ODIN
from attnlab.ood.pytorch_ood import PytorchOOD
from attnlab.ood.react import ReAct
from attnlab.ood.vim import ViM

N, D, K = 400, 24, 5


def final_layer(seed=0, dim=D, bias=True):
    torch.manual_seed(seed)
    return nn.Linear(dim, K, bias=bias)


def bank_of(seed, num=N, fc=None, dim=D, shift=0.0):
    """Non-negative features around class means, as after a ReLU, and their logits."""
    fc = fc or final_layer(dim=dim)
    generator = torch.Generator().manual_seed(99)
    means = 3 * torch.randn(K, dim, generator=generator).relu()
    generator.manual_seed(seed)
    labels = torch.randint(K, (num,), generator=generator)
    scale = torch.linspace(0.2, 1.5, dim)
    features = (means[labels] + shift + scale * torch.randn(num, dim, generator=generator)).relu()
    with torch.no_grad():
        return Bank(features, fc(features), labels, fc)


TRAIN, TEST = bank_of(1), bank_of(2, num=77, shift=0.3)


def fitted(head, train=TRAIN, test=TEST):
    head.fit(train)
    scores = head.score(test)
    assert scores.shape == (len(test),)
    assert scores.dtype in (torch.float32, torch.float64)
    assert not scores.requires_grad
    return scores.double().numpy()


def arrays(bank):
    return bank.features.double().numpy(), bank.logits.double().numpy(), bank.labels.numpy()


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_logit_heads(temperature):
    _, logits, _ = arrays(TEST)
    np.testing.assert_allclose(MSP(temperature=temperature).score(TEST), -softmax(logits / temperature, 1).max(1), rtol=1e-12)
    np.testing.assert_allclose(MaxLogit().score(TEST), -logits.max(1), rtol=1e-12)
    energy = -temperature * logsumexp(logits / temperature, 1)
    np.testing.assert_allclose(Energy(temperature=temperature).score(TEST), energy, rtol=1e-12)


def test_energy_of_log_probabilities_is_refused():
    """It is 0 for every sample, and its rounding would be ranked."""
    for dtype in (torch.float32, torch.float64):
        bank = Bank(TEST.features, TEST.logits.to(dtype).log_softmax(1), TEST.labels)
        with pytest.raises(ValueError, match="the logits are log-probabilities"):
            Energy().score(bank)
        assert Energy(temperature=2.0).score(bank).std() > 0
        some = Bank(bank.features[:2], torch.stack([bank.logits[0], TEST.logits[1].to(dtype)]), bank.labels[:2])
        assert Energy().score(some)[0].abs() < 1e-5  # one may happen to be


def test_confident_samples_do_not_tie():
    logits = torch.tensor([[20.0, 0, 0], [25, 0, 0], [30, 0, 0]])  # all 1 after a softmax in fp32
    scores = MSP().score(Bank(torch.zeros(3, 1), logits, torch.zeros(3, dtype=torch.int64)))
    assert (scores.diff() < 0).all()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("k", [1, 50])
def test_knn(k, normalize):
    train, test = arrays(TRAIN)[0], arrays(TEST)[0]
    if normalize:
        train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    distances = np.sqrt(((test[:, None] - train[None]) ** 2).sum(2))
    found = fitted(KNN(k=k, normalize=normalize))
    np.testing.assert_allclose(found, np.sort(distances, 1)[:, k - 1], rtol=1e-6, atol=1e-9)
    by_sklearn = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(train).kneighbors(test)[0][:, -1]
    np.testing.assert_allclose(found, by_sklearn, rtol=1e-6, atol=1e-9)


def test_knn_with_fewer_features_than_k(caplog):
    few = Bank(TRAIN.features[:7], TRAIN.logits[:7], TRAIN.labels[:7])
    found = fitted(KNN(k=50, normalize=False), train=few)
    assert "k=50 is more than the 7 training features" in caplog.text
    np.testing.assert_allclose(found, torch.cdist(TEST.features.double(), few.features.double()).amax(1), rtol=1e-6)
    head = KNN(k=50)
    head.fit(few)
    head.fit(TRAIN)  # a second fit is not held to the first one's k
    assert head.detector.k == 50


def test_knn_of_equal_and_zero_features():
    features = torch.zeros(60, 3)
    features[30:] = 1
    bank = Bank(features, torch.zeros(60, 2), torch.zeros(60, dtype=torch.int64))
    assert np.isfinite(fitted(KNN(), bank, bank)).all()
    np.testing.assert_allclose(fitted(KNN(k=30), bank, bank), 0, atol=1e-7)


def mahalanobis(train, test):
    features, _, labels = arrays(train)
    means = np.stack([features[labels == c].mean(0) for c in np.unique(labels)])
    within = np.concatenate([features[labels == c] - features[labels == c].mean(0) for c in np.unique(labels)])
    inverse = np.linalg.pinv(within.T @ within / len(features), rcond=1e-13, hermitian=True)
    away = arrays(test)[0][:, None] - means[None]
    return 0.5 * np.einsum("nci,ij,ncj->nc", away, inverse, away).min(1)


def test_mahalanobis():
    np.testing.assert_allclose(fitted(Mahalanobis()), mahalanobis(TRAIN, TEST), rtol=1e-4)


def test_products_are_exact_inside_a_head_and_as_before_after_it():
    from attnlab.ood.bank import exact

    products = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = [product.fp32_precision for product in products]
    try:
        for product in products:
            product.fp32_precision = "tf32"
        with pytest.raises(ZeroDivisionError), exact(TEST):
            assert [product.fp32_precision for product in products] == ["ieee", "ieee"]
            1 / 0  # noqa: B018
        assert [product.fp32_precision for product in products] == ["tf32", "tf32"]
    finally:
        for product, precision in zip(products, before):
            product.fp32_precision = precision


def with_features(bank, features):
    return Bank(features, bank.logits, bank.labels, bank.fc)


def test_mahalanobis_with_singular_covariance():
    """A dead unit, a repeated one, and a direction that hardly varies: an inverse in fp32 of this is noise."""

    def spoil(bank):
        f = bank.features.double()
        return with_features(bank, torch.cat([f, torch.zeros(len(bank), 1), f[:, :1], f[:, 1:2] + 1e-4 * f[:, 2:3] ** 2], 1))

    train, test = spoil(TRAIN), spoil(TEST)
    found = fitted(Mahalanobis(), train, test)
    np.testing.assert_allclose(found, mahalanobis(train, test), rtol=1e-3)
    assert (found > 0).all()


def test_mahalanobis_with_fewer_samples_than_features():
    train, test = bank_of(3, num=30, dim=64), bank_of(4, num=20, dim=64)
    np.testing.assert_allclose(fitted(Mahalanobis(), train, test), mahalanobis(train, test), rtol=1e-3)


def test_mahalanobis_is_affine_invariant_and_takes_labels_with_gaps():
    torch.manual_seed(0)
    a, b = torch.randn(D, D).double(), 5 * torch.randn(D).double()

    def mapped(bank):
        return Bank(bank.features.double() @ a + b, bank.logits, 3 * bank.labels + 2)

    expected = fitted(Mahalanobis())
    np.testing.assert_allclose(fitted(Mahalanobis(), mapped(TRAIN), mapped(TEST)), expected, rtol=1e-3)


def test_mahalanobis_refuses_features_without_any_variance():
    bank = Bank(torch.ones(6, 3), torch.zeros(6, 2), torch.tensor([0, 1, 0, 1, 0, 1]))
    with pytest.raises(ValueError, match="all equal"):
        Mahalanobis().fit(bank)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dim", [None, 5, 23])
def test_vim(dim, bias):
    fc = final_layer(bias=bias)
    train, test = bank_of(1, fc=fc), bank_of(2, num=77, fc=fc, shift=0.3)
    w, b = fc.weight.detach().double().numpy(), fc.bias.detach().double().numpy() if bias else np.zeros(K)
    origin = -np.linalg.pinv(w) @ b
    centred, queries = arrays(train)[0] - origin, arrays(test)[0] - origin
    _, vectors = np.linalg.eigh(centred.T @ centred / N)
    null = vectors[:, : D - (dim or D // 2)]
    alpha = arrays(train)[1].max(1).mean() / np.linalg.norm(centred @ null, axis=1).mean()
    expected = alpha * np.linalg.norm(queries @ null, axis=1) - logsumexp(arrays(test)[1], 1)
    np.testing.assert_allclose(fitted(ViM(principal_dim=dim), train, test), expected, rtol=1e-3, atol=1e-3)  # the library is fp32 here


def test_vim_dimension():
    assert [ViM.rule(width) for width in (24, 512, 640, 1500, 2048)] == [12, 256, 512, 512, 1000]
    head = ViM()
    head.fit(TRAIN)
    assert head.outside_DR.shape[1] == 12
    head.fit(bank_of(1, dim=30))  # a second fit is not held to the first one's width
    assert head.outside_DR.shape[1] == 15
    for bad in (D, D + 1):
        with pytest.raises(ValueError, match=rf"must be in \[1, 23\] for 24 features, got {bad}"):
            ViM(principal_dim=bad).fit(TRAIN)
    bank = Bank(torch.zeros(9, D), torch.zeros(9, K), torch.zeros(9, dtype=torch.int64), nn.Linear(D, K, bias=False))
    with pytest.raises(ValueError, match="no part outside"):
        ViM(principal_dim=4).fit(bank)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("percentile", [0.9, 0.5])
def test_react(percentile, bias):
    fc = final_layer(bias=bias)
    train, test = bank_of(1, fc=fc), bank_of(2, num=77, fc=fc, shift=0.3)
    limit = np.sort(arrays(train)[0].ravel())
    place = percentile * (limit.size - 1)
    low = math.floor(place)
    limit = limit[low] + (place - low) * (limit[low + 1] - limit[low])
    w, b = fc.weight.detach().double().numpy(), fc.bias.detach().double().numpy() if bias else 0
    expected = -logsumexp(np.minimum(arrays(test)[0], limit) @ w.T + b, 1)
    np.testing.assert_allclose(fitted(ReAct(percentile=percentile), train, test), expected, rtol=1e-6)


class Tiny(nn.Module):
    """Output of a small smooth network; counts its passes."""

    def __init__(self, features=True):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 16, 8), nn.Dropout(0.5))
        self.fc = nn.Linear(8, K)
        self.has_features, self.passes = features, 0

    def forward(self, x):
        self.passes += 1
        f = self.body(x)
        return Output(self.fc(f), f if self.has_features else None, self.fc)


def images(seed, num=10):
    return torch.randn(num, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def loader(seed, num=10, batch=4):
    labels = torch.arange(num) % K
    return list(zip(images(seed, num).split(batch), labels.split(batch)))


@pytest.mark.parametrize("std", [None, (0.2, 0.5, 1.5)])
def test_odin_by_hand(std):
    network = Tiny().double().eval()
    x = images(0).double()
    expected_x, expected = [], []
    for row in x:
        row = row[None].clone().requires_grad_()
        z = network(row).logits / 1000
        loss = -z.log_softmax(1)[0, z.argmax()]
        (gradient,) = torch.autograd.grad(loss, row)
        step = 0.0014 * gradient.sign()
        for channel in range(3):
            step[:, channel] /= 1.0 if std is None else std[channel]
        moved = (row - step).detach()
        expected_x.append(moved)
        expected.append(-(network(moved).logits / 1000).softmax(1).max().item())
    head = ODIN(std=std)
    with torch.no_grad():  # as banks are extracted
        moved = head.perturb(network, x)
    assert not moved.requires_grad
    torch.testing.assert_close(moved, torch.cat(expected_x), rtol=0, atol=1e-9)  # criterion and step are fp32 and fp64
    assert all(parameter.grad is None for parameter in network.parameters())
    bank = extract(network, [(x, torch.zeros(10, dtype=torch.int64))], perturb=head.perturb)
    np.testing.assert_allclose(head.score(bank), expected, rtol=1e-9)


def test_odin_without_a_step_is_msp_at_its_temperature():
    network = Tiny()
    head = ODIN(eps=0.0, temperature=10.0)
    bank = extract(network, loader(0), perturb=head.perturb)
    assert network.passes == 2 * 3  # gradient and score of three batches; none of the images as they were
    torch.testing.assert_close(head.score(bank), MSP(temperature=10.0).score(extract(network, loader(0))))


# ---------------------------------------------------------------- any other detector, by name


def learned():
    """The banks of a network that has learned its classes."""
    fc = nn.Linear(D, K)
    with torch.no_grad():
        means = torch.stack([TRAIN.features[TRAIN.labels == c].mean(0) for c in range(K)])
        fc.weight.copy_(means / 10)
        fc.bias.copy_(-means.square().sum(1) / 20)
        return [Bank(bank.features, fc(bank.features), bank.labels, fc) for bank in (TRAIN, TEST)]


@pytest.mark.parametrize(
    ("detector", "parameters"),
    [
        ("Entropy", {}),
        ("GEN", {"gamma": 0.2}),
        ("KLMatching", {}),
        ("TemperatureScaling", {}),
        ("OpenMax", {"tailsize": 10}),
        ("GMM", {"reg": 1e-3}),
        ("RMD", {}),
        ("DICE", {"p": 0.5}),
        ("SHE", {}),
        ("NNGuide", {"k": 5}),
        ("fDBD", {}),
        ("NCI", {}),
        ("LTS", {}),
        ("VRA", {}),
        ("PNML", {}),
    ],
)
def test_any_detector_that_a_bank_can_feed(detector, parameters):
    train, test = learned()
    head = PytorchOOD(detector=detector, parameters=parameters)
    if head.needs_fit:
        head.fit(train)
    scores = head.score(test)
    assert scores.shape == (len(test),)
    assert scores.isfinite().all()
    assert scores.dtype in (torch.float32, torch.float64)
    assert not scores.requires_grad


def test_entropy_and_gda_formulas():
    p = softmax(arrays(TEST)[1], 1)
    np.testing.assert_allclose(PytorchOOD(detector="Entropy").score(TEST), -(p * np.log(p)).sum(1), rtol=1e-9)
    features, _, labels = arrays(TRAIN)
    per_class = []
    for c in range(K):
        mine = features[labels == c]
        cov = np.cov(mine.T, bias=True) + 1e-3 * np.eye(D)
        away = arrays(TEST)[0] - mine.mean(0)
        quadratic = np.einsum("ni,ij,nj->n", away, np.linalg.inv(cov), away)
        per_class.append(np.log(len(mine) / N) - 0.5 * (quadratic + np.linalg.slogdet(cov)[1] + D * np.log(2 * np.pi)))
    found = fitted(PytorchOOD(detector="GMM", parameters={"reg": 1e-3}))
    np.testing.assert_allclose(found, -logsumexp(per_class, axis=0), rtol=1e-6)


def test_kl_matching_formula():
    """1911.11132: the divergence of the posterior from the nearest of the predicted classes' mean posteriors."""
    train, test = learned()
    p_NK, q_NK = softmax(arrays(train)[1], 1), softmax(arrays(test)[1], 1)
    typical = np.stack([p_NK[p_NK.argmax(1) == c].mean(0) for c in np.unique(p_NK.argmax(1))])
    expected = [min((q * np.log(q / d)).sum() for d in typical) for q in q_NK]
    np.testing.assert_allclose(fitted(PytorchOOD(detector="KLMatching"), train, test), expected, rtol=1e-9)


def test_relative_mahalanobis_formula():
    """2106.09022: the distance to the nearest class less that to all of the data; the library divides no covariance by N."""
    train, labels = arrays(TRAIN)[0], arrays(TRAIN)[2]
    means = np.stack([train[labels == c].mean(0) for c in range(K)])
    within, all_of_it = train - means[labels], train - train.mean(0)

    def distance(x, mean, deviations):
        return np.einsum("ni,ij,nj->n", x - mean, np.linalg.inv(deviations.T @ deviations), x - mean)

    test = arrays(TEST)[0]
    to_classes = np.min([distance(test, mean, within) for mean in means], axis=0)
    expected = to_classes - distance(test, train.mean(0), all_of_it)
    assert expected.min() < 0 < expected.max()
    np.testing.assert_allclose(fitted(PytorchOOD(detector="RMD")), expected, rtol=1e-3, atol=1e-4)


def test_simplified_hopfield_energy_formula():
    """Zhang et al., ICLR 2023: minus the inner product with the mean of the predicted class's correctly classified features."""
    train, test = learned()
    features, logits, labels = arrays(train)
    patterns = np.stack([features[(labels == c) & (logits.argmax(1) == c)].mean(0) for c in range(K)])
    expected = -(arrays(test)[0] * patterns[arrays(test)[1].argmax(1)]).sum(1)
    np.testing.assert_allclose(fitted(PytorchOOD(detector="SHE"), train, test), expected, rtol=1e-5)


def test_detectors_that_cannot_be():
    with pytest.raises(ValueError, match="no detector 'MaxSoftmx'; did you mean MaxSoftmax"):
        PytorchOOD(detector="MaxSoftmx")
    with pytest.raises(ValueError, match="no parameter 'gama'; did you mean gamma"):
        PytorchOOD(detector="GEN", parameters={"gama": 1.0})
    with pytest.raises(ValueError, match="DICE needs the parameter 'p'"):
        PytorchOOD(detector="DICE")
    with pytest.raises(ValueError, match="GradNorm cannot work on logits or pooled features alone"):
        PytorchOOD(detector="GradNorm")


def test_values_that_cannot_be():
    for make, text in [
        (lambda: MSP(temperature=0), "temperature must be above 0, got 0"),
        (lambda: Energy(temperature=-1.0), "temperature must be above 0"),
        (lambda: ODIN(eps=-0.1), "eps must be at least 0"),
        (lambda: ODIN(std=(0.2, 0.0)), "std must be a positive number for each channel"),
        (lambda: KNN(k=0), "k must be at least 1"),
        (lambda: ViM(principal_dim=0), "principal_dim must be at least 1"),
        (lambda: ReAct(percentile=90.0), r"percentile must be a fraction in \[0, 1\], got 90"),
    ]:
        with pytest.raises(ValueError, match=text):
            make()


@pytest.mark.parametrize("head", [ViM(), ReAct(), PytorchOOD(detector="DICE", parameters={"p": 0.5})])
def test_heads_that_need_the_final_linear(head):
    for fc, text in [
        (None, "needs the weights of a final nn.Linear, and the bank's fc is None"),
        (nn.Identity(), "fc is Identity"),
        (nn.Linear(3, K), "takes 3 features, and the bank holds 24"),
        (nn.Linear(D, K), "does not map the features to the logits"),
    ]:
        with pytest.raises(ValueError, match=text):
            head.fit(Bank(TRAIN.features, TRAIN.logits, TRAIN.labels, fc))


def test_the_final_linear_is_a_copy_without_gradient_that_makes_the_logits_to_a_twentieth():
    assert not any(parameter.requires_grad for parameter in final_linear(TRAIN, "x").parameters())
    far = 100 * TRAIN.features
    for factor, fits in ((1.04, True), (1.08, False)):
        bank = Bank(far, factor * TRAIN.fc(far).detach(), TRAIN.labels, TRAIN.fc)
        if fits:
            final_linear(bank, "x")
            continue
        with pytest.raises(ValueError, match="does not map the features to the logits"):
            final_linear(bank, "x")


def test_a_bank_of_a_tensor():
    assert torch.equal(as_bank(TRAIN.features).features, TRAIN.features) and as_bank(TRAIN.logits, takes="logits").features.shape == (N, 0)
    with pytest.raises(ValueError, match=r"logits must be \(N, K\), a row a sample, got \(5,\)"):
        as_bank(torch.zeros(K), takes="logits")


@pytest.mark.parametrize("head", [KNN(), Mahalanobis(), ViM(), ReAct()])
def test_feature_heads_without_features_and_before_fit(head):
    with pytest.raises(ValueError, match="must be fitted"):
        head.score(TEST)
    with pytest.raises(ValueError, match="names no `features` place"):
        head.fit(Bank(TRAIN.features[:, :0], TRAIN.logits, TRAIN.labels, TRAIN.fc))


def test_heads_compute_in_full_precision_whatever_training_does():
    """bf16 autocast and low matmul precision around a head change nothing, and are as before afterwards."""
    for make in (ViM, Mahalanobis, ReAct):
        expected = fitted(make())
        before = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision("medium")
            with torch.autocast("cpu", dtype=torch.bfloat16):
                np.testing.assert_array_equal(fitted(make()), expected)
                assert torch.is_autocast_enabled("cpu")
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_float32_matmul_precision(before)


# ---------------------------------------------------------------- banks


def test_bank_is_checked_and_cast():
    bank = Bank(torch.zeros(3, 2, dtype=torch.bfloat16), torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.uint8))
    assert (bank.features.dtype, bank.logits.dtype, bank.labels.dtype) == (torch.float32, torch.float64, torch.int64)
    assert len(bank) == 3
    f, z, y = torch.zeros(3, 2), torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
    for wrong in [(f[:2], z, y), (f, z[:, 0], y), (f, z, y[:, None]), (f[:0], z[:0], y[:0])]:
        with pytest.raises(ValueError, match="bank"):
            Bank(*wrong)
    with pytest.raises(ValueError, match="class numbers"):
        Bank(f, z, y.float())
    with pytest.raises(ValueError, match="one device"):
        Bank(f, z, y.to("meta"))


def test_extract_is_the_network_in_eval_mode():
    network = Tiny()
    network.body[1].eval()  # a frozen norm stays frozen
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    bank = extract(network, loader(0))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    out = network.eval()(images(0))
    torch.testing.assert_close(bank.logits, out.logits.detach())
    torch.testing.assert_close(bank.features, out.features.detach())
    assert bank.labels.tolist() == [n % K for n in range(10)]
    assert bank.fc is network.fc
    assert not (bank.logits.requires_grad or bank.logits.is_inference())


def test_extract_of_other_networks():
    without = extract(Tiny(features=False), loader(0))
    assert without.features.shape == (10, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = extract(Tiny(), loader(0))
    assert half.logits.dtype == half.features.dtype == torch.float32
    with pytest.raises(ValueError, match="gave no batch"):
        extract(Tiny(), [])
    network = Tiny().train()
    with pytest.raises(ZeroDivisionError):
        extract(network, (1 / 0 for _ in range(1)))
    assert network.training and network.body[1].training


def test_extract_copies_outputs_that_a_network_reuses():
    class Reuses(nn.Module):
        """As a network compiled with CUDA graphs: every call writes into the same memory."""

        memory = torch.zeros(4, 2)

        def forward(self, x):
            return Output(self.memory.copy_(x), self.memory, None)

    x = torch.arange(16.0).view(8, 2)
    bank = extract(Reuses(), [(x[:4], torch.zeros(4).long()), (x[4:], torch.zeros(4).long())])
    assert torch.equal(bank.logits, x)
    assert torch.equal(bank.features, x)


class Shift:
    """A head that needs perturbed images and sees that it gets them."""

    def perturb(self, network, x):
        assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        assert not network.training
        return x + 1

    def fit(self, bank):
        self.fitted = bank

    def score(self, bank):
        return bank.logits.sum(1)


class Broken:
    def __init__(self, at):
        self.at = at

    def fit(self, bank):
        if self.at == "fit":
            raise ValueError("no fit today")

    def score(self, bank):
        if self.at == "test" and bank.labels[0] >= 0:
            raise IndexError("no test today")
        if self.at == "ood" and bank.labels[0] < 0:
            raise ValueError("no OOD today")
        if self.at == "nan":
            return torch.full((len(bank),), math.nan)
        return bank.logits.sum(1).bfloat16() if self.at == "half" else bank.logits.sum(1)


class BrokenPerturb(Broken):
    def perturb(self, network, x):
        raise RuntimeError("no gradient today")


def test_every_set_is_passed_over_once_for_all_heads():
    network = Tiny()
    chosen = {"msp": MSP(), "knn": KNN(k=3), "mahalanobis": Mahalanobis(), "odin": ODIN(), "shift": Shift()}
    sets = {"a": loader(3), "b": loader(4, num=7)}
    found = evaluate_heads(network, chosen, loader(1, num=40), loader(2), sets)
    # plain everywhere; shift everywhere; odin, that needs no fit, twice (gradient, score) on test (3 batches), a (3) and b (2)
    assert network.passes == (10 + 3 + 3 + 2) * 2 + (3 + 3 + 2) * 2
    assert found.errors == {}
    assert list(found.scores) == list(chosen)
    assert all({name: len(s) for name, s in by_set.items()} == {"test": 10, "a": 10, "b": 7} for by_set in found.scores.values())
    # the same by hand
    test, ood = extract(network, loader(2)), extract(network, loader(4, num=7))
    for name, value in metrics.ood_metrics(MSP().score(test), MSP().score(ood)).items():
        assert found.metrics[f"ood/msp/b/{name}"] == value
        assert found.metrics[f"ood/msp/mean/{name}"] == pytest.approx((found.metrics[f"ood/msp/a/{name}"] + value) / 2)
    assert len(found.metrics) == 5 * 3 * 5
    odin = chosen["odin"]
    torch.testing.assert_close(found.scores["odin"]["b"], odin.score(extract(network, loader(4, num=7), perturb=odin.perturb)))
    torch.testing.assert_close(found.scores["shift"]["test"], extract(network, [(x + 1, y) for x, y in loader(2)]).logits.sum(1))
    assert len(chosen["shift"].fitted) == 40


def test_a_test_bank_at_hand_spares_a_pass():
    network = Tiny()
    expected = evaluate_heads(network, {"msp": MSP(), "shift": Shift()}, loader(1), loader(2), {"a": loader(3)})
    bank = extract(network, loader(2))
    for chosen, passes in [({"msp": MSP()}, 3), ({"shift": Shift()}, 9)]:
        network.passes = 0
        found = evaluate_heads(network, chosen, loader(1), loader(2), {"a": loader(3)}, banks={"test": bank})
        assert network.passes == passes  # msp: a; shift, from perturbed images only: train, test, a
        assert found.metrics == {key: value for key, value in expected.metrics.items() if key.split("/")[1] in chosen}


def test_one_set_has_no_mean_and_no_heads_no_passes():
    network = Tiny()
    found = evaluate_heads(network, {"msp": MSP()}, None, loader(2), {"a": loader(3)})
    assert sorted(found.metrics) == [f"ood/msp/a/{name}" for name in ("aupr_in", "aupr_out", "auroc", "fpr95", "fpr95_id")]
    assert network.passes == 6
    empty = evaluate_heads(network, {}, loader(1), loader(2), {"a": loader(3)})
    assert (*empty, network.passes) == ({}, {}, {}, 6)
    for name in ("test", "mean"):
        with pytest.raises(ValueError, match=f"cannot be named {name}"):
            evaluate_heads(network, {}, None, loader(2), {name: loader(3)})


@pytest.mark.parametrize("at", ["fit", "test", "ood", "nan", "half"])
@pytest.mark.parametrize("cls", [Broken, BrokenPerturb])
def test_a_head_that_fails_costs_its_own_figures_only(cls, at):
    sets = {"a": loader(3), "b": loader(4)}
    good = evaluate_heads(Tiny(), {"msp": MSP(), "shift": Shift()}, loader(1), loader(2), sets)
    found = evaluate_heads(Tiny(), {"msp": MSP(), "bad": cls(at), "shift": Shift()}, loader(1), loader(2), sets)
    assert found.metrics == good.metrics
    key, text = {
        "fit": ("bad", "ValueError: no fit today"),
        "test": ("bad/test", "IndexError: no test today"),
        "ood": ("bad/a", "ValueError: no OOD today"),
        "nan": ("bad/test", "ValueError: 10 of 10 scores are NaN"),
        "half": ("bad/test", "ValueError: score must give (10,) numbers in float32 or float64, got (10,) in torch.bfloat16"),
    }[at]
    if cls is BrokenPerturb:
        key, text = "bad", "RuntimeError: no gradient today"
    assert found.errors[key] == text
    assert all(name.startswith("bad") for name in found.errors)


def test_data_that_cannot_be_read_cost_their_own_column_only():
    def torn():
        yield from loader(3)[:1]
        raise OSError("image 5 is torn")

    found = evaluate_heads(Tiny(), {"msp": MSP(), "knn": KNN(k=2)}, loader(1), loader(2), {"a": torn(), "b": loader(4)})
    assert found.errors == {"a": "OSError: image 5 is torn"}
    assert sorted({name.rsplit("/", 1)[0] for name in found.metrics}) == ["ood/knn/b", "ood/msp/b"]  # and no mean over what is left
    with pytest.raises(OSError, match="torn"):
        evaluate_heads(Tiny(), {"msp": MSP()}, None, torn(), {})


def test_fitting_without_training_data_is_an_error_of_that_head():
    found = evaluate_heads(Tiny(), {"msp": MSP(), "knn": KNN()}, None, loader(2), {"a": loader(3)})
    assert list(found.errors) == ["knn"] and "no training data" in found.errors["knn"]
    assert "ood/msp/a/auroc" in found.metrics


def test_perturbations_of_a_compiled_network_are_not_compiled():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    class Uncounted(Tiny):  # a counter in forward would be a graph a pass
        def forward(self, x):
            f = self.body(x)
            return Output(self.fc(f), f, self.fc)

    network = Uncounted()
    plain = extract(network, loader(0, num=8), perturb=ODIN().perturb)
    network.compile(backend=backend)
    compiled = extract(network, loader(0, num=8), perturb=ODIN().perturb)
    torch.testing.assert_close(compiled.logits, plain.logits)
    assert len(graphs) == 1


def test_views_of_one_pass():
    banks, errors = extract_views(
        Tiny(), loader(0), {"up": lambda n, x: x + 1, "bad": BrokenPerturb("").perturb, "down": lambda n, x: x - 1}
    )
    assert list(banks) == [None, "up", "down"]
    assert list(errors) == ["bad"]
    torch.testing.assert_close(banks["down"].logits, extract(Tiny(), [(x - 1, y) for x, y in loader(0)]).logits)
    with pytest.raises(RuntimeError, match="no gradient"):
        extract(Tiny(), loader(0), perturb=BrokenPerturb("").perturb)
