# B batch, C channels of a tap, N positions, D the global vector, K classes, S taps
"""Learn To Pay Attention against a slow statement of its equations, its networks' parameter counts, and the authors' backward pass."""

import copy
import inspect
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from attnlab.attention.ltpa import GradScale, LearnToPayAttention
from attnlab.backbones.resnet import resnet18
from attnlab.backbones.vgg import vgg_ltpa

TAPS = [(6, 5, 4), (8, 3, 3), (8, 2, 1)]
DIM, K, B = 8, 5, 4


def build(num_taps=3, **options) -> LearnToPayAttention:
    torch.manual_seed(0)
    module = LearnToPayAttention((DIM,), read_shapes=TAPS[-num_taps:], num_classes=K, **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:  # BatchNorms and biases away from 1 and 0
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def values(num_taps=3, num=B):
    generator = torch.Generator().manual_seed(3)
    g = torch.randn(num, DIM, generator=generator, dtype=torch.float64)
    return g, [torch.randn(num, *tap, generator=generator, dtype=torch.float64).relu() for tap in TAPS[-num_taps:]]


def batch_norm(x_BC, norm):
    """Training mode, a column at a time."""
    columns = []
    for c in range(x_BC.shape[1]):
        column = x_BC[:, c]
        mean = sum(column) / len(column)
        variance = sum((v - mean) ** 2 for v in column) / len(column)
        columns.append((column - mean) / (variance + norm.eps).sqrt() * norm.weight[c] + norm.bias[c])
    return torch.stack(columns, 1)


def slow(module, g_BD, taps, *, compatibility, combine, indep_combine, match):
    """The sheet's five steps, one image and one position at a time (dropout 0)."""
    maps, gathered = [], []
    for unit, l_BCHW in zip(module.units, taps):
        g_BC = g_BD
        if l_BCHW.shape[1] != DIM:
            g_BC = batch_norm(g_BD, unit.match_g[0]).clamp(min=0)
            if match == "g_down":
                g_BC = g_BC @ unit.match_g[3].weight.T + unit.match_g[3].bias
            else:
                w = unit.match_l.weight[:, :, 0, 0]
                l_BCHW = torch.einsum("dc,bchw->bdhw", w, l_BCHW) + unit.match_l.bias[:, None, None]
        height, width = l_BCHW.shape[2:]
        rows, vectors = [], []
        for b in range(len(g_BC)):
            scores = {}
            for i, j in product(range(height), range(width)):
                l_C = l_BCHW[b, :, i, j]
                if compatibility == "pc":
                    scores[i, j] = (unit.score.weight[0, :, 0, 0] * (l_C + g_BC[b])).sum() + unit.score.bias[0]
                else:
                    scores[i, j] = (l_C * g_BC[b]).sum()
            total = sum(score.exp() for score in scores.values())
            a = {place: score.exp() / total for place, score in scores.items()}
            vectors.append(sum(a[i, j] * l_BCHW[b, :, i, j] for i, j in a))
            rows.append(torch.stack(list(a.values())).view(1, height, width))
        maps.append(torch.stack(rows))
        gathered.append(torch.stack(vectors))
    hidden = [batch_norm(x, h[0]).clamp(min=0) for x, h in zip(gathered, module.hidden)]
    if combine == "concat":
        return module.classifiers[0](torch.cat(hidden, 1)), maps
    logits = [classifier(x) for classifier, x in zip(module.classifiers, hidden)]
    if indep_combine == "sum_logit":
        return sum(logits), maps
    if indep_combine == "sum_logprob":
        return sum(z.softmax(1).log() for z in logits), maps
    return (sum(z.softmax(1) for z in logits) / len(logits)).log(), maps


FORMS = [("concat", "mean_prob"), ("indep", "mean_prob"), ("indep", "sum_logit"), ("indep", "sum_logprob")]


@pytest.mark.parametrize("compatibility", ["pc", "dp"])
@pytest.mark.parametrize("match", ["g_down", "l_up"])
@pytest.mark.parametrize(("combine", "indep_combine"), FORMS)
def test_against_the_slow_statement(compatibility, match, combine, indep_combine):
    form = dict(compatibility=compatibility, match=match, combine=combine, indep_combine=indep_combine)
    module = build(**form, dropout=0.0, merge_grad="sum")
    g, taps = values()
    leaves = [g, *taps, *module.parameters()]
    for leaf in leaves:
        leaf.requires_grad_()
    expected, maps = slow(module, g, taps, **form)
    logits = module(g, *taps)
    torch.testing.assert_close(logits, expected)
    for ours, theirs in zip(module.maps, maps, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(module.map, maps[-1] / maps[-1].flatten(1).max(1).values[:, None, None, None])
    weights = torch.randn(B, K, dtype=torch.float64)
    for ours, theirs in zip(*(torch.autograd.grad((z * weights).sum(), leaves) for z in (logits, expected))):
        torch.testing.assert_close(ours, theirs)


SHEET = [
    (10, 1, {}, 19_714_123),
    (10, 2, {}, 19_720_780),
    (10, 2, dict(compatibility="dp"), 19_719_754),
    (10, 3, {}, 19_856_461),
    (10, 3, dict(match="l_up"), 19_860_045),
    (100, 1, {}, 19_760_293),
    (100, 2, {}, 19_813_030),
    (100, 2, dict(compatibility="dp"), 19_812_004),
    (100, 3, {}, 19_971_751),
    (100, 3, dict(match="l_up"), 19_998_375),
]


@pytest.mark.parametrize(("num_classes", "num_taps", "options", "expected"), SHEET)
def test_parameter_counts_of_the_networks(num_classes, num_taps, options, expected):
    taps = [(256, 32, 32), (512, 16, 16), (512, 8, 8)][-num_taps:]
    with torch.device("meta"):
        network = vgg_ltpa(num_classes, (3, 32, 32))
        network.fc = LearnToPayAttention((512,), read_shapes=taps, host=network.fc, **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    assert network.fc.classifiers[0].in_features == {1: 512, 2: 1024, 3: 1280}[num_taps] + (256 if "match" in options else 0)


def test_maps_sum_to_one_and_show_in_zero_one():
    module = build().eval()
    g, taps = values()
    module(g, *taps)
    assert [tuple(a.shape) for a in module.maps] == [(B, 1, *tap[1:]) for tap in TAPS]
    for a in module.maps:
        torch.testing.assert_close(a.sum((1, 2, 3)), torch.ones(B, dtype=torch.float64))
    assert module.map.min() >= 0 and torch.equal(module.map.amax((1, 2, 3)), torch.ones(B, dtype=torch.float64))


def test_a_constant_added_to_the_scores_changes_nothing():
    module = build().eval()
    g, taps = values()
    before = module(g, *taps), [a.clone() for a in module.maps]
    with torch.no_grad():
        for unit in module.units:
            unit.score.bias += 7.0
    torch.testing.assert_close(module(g, *taps), before[0])
    for ours, theirs in zip(module.maps, before[1]):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("compatibility", ["pc", "dp"])
def test_no_preference_gathers_the_mean(compatibility):
    module = build(2, compatibility=compatibility).eval()
    g, taps = values(2)
    if compatibility == "pc":
        for unit in module.units:
            nn.init.zeros_(unit.score.weight)
    else:
        g = torch.zeros_like(g)
    seen = []
    module.attended.register_forward_hook(lambda m, a, value: seen.append(value))
    module(g, *taps)
    torch.testing.assert_close(seen[0], torch.cat([tap.mean((2, 3)) for tap in taps], 1))
    for a in module.maps:
        torch.testing.assert_close(a, torch.full_like(a, 1 / a[0].numel()))


def test_g_counts_only_through_the_scores():
    """dp: a g moved across all differences of the tap's vectors shifts every score alike. pc: any g does."""
    g, taps = values(1)  # 8 channels, 2 positions: one difference
    module = build(1, compatibility="dp").eval()
    difference = taps[0][:, :, 0, 0] - taps[0][:, :, 1, 0]
    step = torch.randn(B, DIM, dtype=torch.float64)
    step -= (step * difference).sum(1, keepdim=True) / difference.square().sum(1, keepdim=True) * difference
    torch.testing.assert_close(module(g + step, *taps), module(g, *taps))
    assert not torch.allclose(module(g + difference, *taps), module(g, *taps))

    module = build(1, compatibility="pc").eval()
    torch.testing.assert_close(module(g + difference, *taps), module(g, *taps))
    g.requires_grad_()
    module(g, *taps).square().sum().backward()
    assert g.grad.abs().max() < 1e-12


def test_combinations_agree_on_one_tap():
    g, taps = values(1)
    found = {form: build(1, combine=form[0], indep_combine=form[1], dropout=0.0).eval()(g, *taps) for form in FORMS}
    for logits in found.values():
        torch.testing.assert_close(logits.log_softmax(1), found[FORMS[0]].log_softmax(1))
    torch.testing.assert_close(found["indep", "mean_prob"].exp().sum(1), torch.ones(B, dtype=torch.float64))


def test_hidden_false_is_linear_in_what_was_gathered():
    module = build(2, hidden=False)
    g, taps = values(2)
    seen = []
    module.attended.register_forward_hook(lambda m, a, value: seen.append(value))
    torch.testing.assert_close(module(g, *taps), module.classifiers[0](seen[0]))


def test_grad_scale():
    x = torch.randn(3, 2, requires_grad=True)
    scaled = GradScale(scale=0.25)(x)
    assert torch.equal(scaled, x)
    (2 * scaled).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 0.5))


@pytest.mark.parametrize("num_taps", [1, 2, 3])
def test_avg_divides_the_gradient_of_g_by_the_number_of_taps(num_taps):
    found = []
    for merge_grad in ("sum", "avg"):
        g, taps = values(num_taps)
        logits = build(num_taps, compatibility="dp", dropout=0.0, merge_grad=merge_grad)(g.requires_grad_(), *taps)
        found += torch.autograd.grad(logits.square().sum(), [g])
    torch.testing.assert_close(found[1], found[0] / num_taps)


class Chain(nn.Module):
    """A network of three pieces, to write its backward pass by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.tap1 = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh())
        self.tap2 = nn.Sequential(nn.Conv2d(6, 8, 3), nn.Tanh())
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(8 * 9, DIM))
        self.fc = nn.Linear(DIM, K)

    def forward(self, x):
        return self.fc(self.features(self.tap2(self.tap1(x))))


def ltpa(reads, **options):
    return {"at": "fc", "how": "replace", "reads": reads, "module": partial(LearnToPayAttention, **options)}


@pytest.mark.parametrize("merge_grad", ["avg", "sum"])
def test_backward_pass_of_the_authors(merge_grad):
    """avg with `ltpa_merge`: the branches' gradients are averaged at g and at each tap, as the authors' training loop does by hand."""
    from attnlab.placement.attach import place

    torch.manual_seed(0)
    network = Chain()
    plain = copy.deepcopy(network).double()
    placements = {"ltpa": ltpa(["tap1", "tap2"], compatibility="dp", dropout=0.0, merge_grad=merge_grad)}
    if merge_grad == "avg":
        placements["ltpa_merge"] = {"at": ["tap1", "tap2"], "module": partial(GradScale, scale=0.5)}
    network.placed = place(network, placements, shape=(2, 7, 7), num_classes=K)
    network.double()
    x, y = torch.randn(B, 2, 7, 7, dtype=torch.float64), torch.arange(B)
    F.cross_entropy(network(x), y).backward()

    attention = copy.deepcopy(network.fc)
    attention._forward_pre_hooks.clear()
    attention.merge = nn.Identity()
    l1 = plain.tap1(x)
    cut1 = l1.detach().requires_grad_()
    l2 = plain.tap2(cut1)
    cut2 = l2.detach().requires_grad_()
    g = plain.features(cut2)
    leaves = [v.detach().requires_grad_() for v in (l1, l2, g)]
    by_l1, by_l2, by_g = torch.autograd.grad(F.cross_entropy(attention(leaves[2], leaves[0], leaves[1]), y), leaves)
    half = 2 if merge_grad == "avg" else 1
    g.backward(by_g / half)
    l2.backward((cut2.grad + by_l2) / half)
    l1.backward((cut1.grad + by_l1) / half)
    ours = dict(network.named_parameters())
    for name, parameter in plain.named_parameters():
        if not name.startswith("fc."):
            torch.testing.assert_close(ours[name].grad, parameter.grad, msg=name)


READS = ["layer2", "layer3", "layer4"]


def test_placed_on_a_resnet():
    from attnlab.placement.attach import place

    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = resnet18(K, (1, 16, 16), width=4)
        network.placed = place(network, {"ltpa": ltpa(READS)}, shape=(1, 16, 16), num_classes=K)
        networks.append(network)
    network, other = networks
    x = torch.randn(B, 1, 16, 16)
    F.cross_entropy(network(x), torch.arange(B)).backward()
    # with pc too g stays in the graph, which DistributedDataParallel needs
    assert not [name for name, parameter in network.named_parameters() if parameter.grad is None]
    expected = network.eval()(x)
    assert [tuple(a.shape) for a in network.fc.maps] == [(B, 1, 8, 8), (B, 1, 4, 4), (B, 1, 2, 2)]
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other.eval()(x), expected, rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = network(x)
    assert all(a.dtype == torch.float32 for a in network.fc.maps)
    torch.testing.assert_close(low.float(), expected, rtol=0.1, atol=0.1)
    assert network.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("combine", ["concat", "indep"])
def test_features_of_the_network_are_what_the_final_linear_is_given(combine):
    from attnlab.network import Network

    torch.manual_seed(0)
    network = Network(Chain(), {"ltpa": ltpa(["tap1", "tap2"], combine=combine, indep_combine="sum_logit")}, shape=(2, 7, 7), num_classes=K)
    x, y = torch.randn(B, 2, 7, 7), torch.arange(B)
    assert network(x, y).features.requires_grad
    network = copy.deepcopy(network).eval()
    out = network(x)
    assert out.features.shape == (B, 6 + 8)
    parts = [out.features] if combine == "concat" else out.features.split([6, 8], 1)
    torch.testing.assert_close(sum(linear(part) for linear, part in zip(out.fc.classifiers, parts)), out.logits)
    seen = []
    network.backbone.fc.attended.register_forward_hook(lambda m, a, value: seen.append(value))
    network(x)
    expected = [h(part) for h, part in zip(network.backbone.fc.hidden, seen[0].split([6, 8], 1))]
    torch.testing.assert_close(out.features, torch.cat(expected, 1))

    torch.manual_seed(0)
    plain = Network(Chain(), shape=(2, 7, 7), num_classes=K).eval()
    assert plain(x).features.shape == (B, DIM)  # without a replacement: the backbone's own


@pytest.mark.parametrize("options", [dict(compatibility="dp", combine="indep"), dict(match="l_up", merge_grad="sum")])
def test_traces_whole(options):
    from attnlab.placement.attach import place

    torch.manual_seed(0)
    network = Chain()
    placements = {"ltpa": ltpa(["tap1", "tap2"], dropout=0.0, **options), "merge": {"at": "tap*", "module": GradScale}}
    network.placed = place(network, placements, shape=(2, 7, 7), num_classes=K)
    other = copy.deepcopy(network)
    torch._dynamo.reset()
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    x = torch.randn(B, 2, 7, 7)
    for model in (network, compiled):
        F.cross_entropy(model(x), torch.arange(B)).backward()
    for ours, traced in zip(network.fc.maps, other.fc.maps, strict=True):
        torch.testing.assert_close(traced, ours)
    for ours, traced in zip(network.parameters(), other.parameters()):
        torch.testing.assert_close(traced.grad, ours.grad)


def test_author_scale_of_the_scores_at_the_start():
    torch.manual_seed(0)
    module = LearnToPayAttention((512,), read_shapes=[(256, 4, 4), (512, 2, 2)], num_classes=10, match="l_up")
    for unit in module.units:
        assert unit.score.weight.std().item() == pytest.approx(2**0.5, rel=0.1) and not unit.score.bias.any()
    assert module.units[0].match_l.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((8, 2, 2), {}, "at: fc"),
        ((8,), dict(read_shapes=[]), "`reads` must name places"),
        ((8,), dict(read_shapes=[(8,)]), "`reads` must name places"),
        ((8,), dict(num_classes=None), "num_classes is needed"),
        ((8,), dict(dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        ((8,), dict(compatibility="cosine"), "compatibility must be one of pc, dp, got 'cosine'"),
        ((8,), dict(combine="sum"), "combine must be"),
        ((8,), dict(indep_combine="mean"), "indep_combine must be"),
        ((8,), dict(match="both"), "match must be"),
        ((8,), dict(merge_grad="mean"), "merge_grad must be"),
    ],
)
def test_refusals(shape, options, words):
    with pytest.raises(ValueError, match=words):
        LearnToPayAttention(shape, **{"read_shapes": TAPS, "num_classes": K, **options})


@pytest.mark.parametrize("name", ["ltpa", "ltpa_merge"])
def test_yaml_states_the_defaults(name):
    path = Path(__file__).parents[2] / "configs" / "attention" / f"{name}.yaml"
    ((key, spec),) = yaml.safe_load(path.read_text()).items()
    settings = spec["module"]
    target = {"LearnToPayAttention": LearnToPayAttention, "GradScale": GradScale}[settings.pop("_target_").rpartition(".")[2]]
    assert key == name
    known = inspect.signature(target).parameters
    assert settings == {key: known[key].default for key in settings}
    assert spec.get("reads", spec["at"]) == {"ltpa": ["tap1", "tap2", "tap3"], "ltpa_merge": "${attention.ltpa.reads}"}[name]
