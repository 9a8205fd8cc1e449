"""Fine-tuning by few numbers: it starts as the identity, trains what it says, and is merged exactly."""

from pathlib import Path

import pytest
import torch
from make_run import make_run, shake
from torch import Tensor, nn

from zoo.backbone import create_backbone
from zoo.budget import Budget
from zoo.errors import UserError
from zoo.lowrank.factorize import factorize
from zoo.lowrank.layers import FactorizedLinear, factorized_layers
from zoo.lowrank.pruned_update import PrunableFactor, PrunedUpdate
from zoo.methods import METHODS
from zoo.methods._fine_tuning import FineTuningMethod
from zoo.methods.lowrank import Lowrank
from zoo.methods.svf import CoreScale, Svf, WeightScale

NAMES = [name for name in METHODS.names() if METHODS.get(name).fine_tunes]
START = "test_resnet.robust_lowrank50_at_digits"
IMAGE = (3, 16, 16)


def start(form: str, arch: str = "test_resnet") -> nn.Module:
    """Return a network with weights as after a training: dense, or factorized with any U, S and V."""
    torch.manual_seed(0)
    model = shake(create_backbone(arch, 10, IMAGE))
    if form == "dense":
        return model.eval()
    method = Lowrank(convolution=form)
    method.convert(model, method.plan(model, Budget(compression=0.5)))
    for _, layer in factorized_layers(model):
        layer.S.data += 0.1 * layer.S.norm() / layer.rank * torch.randn_like(layer.S)
    return model.eval()


def tuned(model: nn.Module) -> nn.Module:
    """Move every trained number, in place."""
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.1 * (p.abs().mean() + 0.1) * torch.randn_like(p)
    return model


def numbers(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def method_for(name: str, form: str) -> FineTuningMethod:
    narrow = {"start": 8, "rank": 2} if name == "pruned_lora" else {}
    return METHODS.get(name)(convolution="matrix" if form == "dense" else form, **narrow)


@pytest.mark.parametrize("form", ["dense", "matrix", "tucker"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_it_starts_as_the_identity_and_is_merged_exactly(name: str, form: str) -> None:
    model, method, images = start(form), method_for(name, form), torch.rand(4, *IMAGE)
    names, ranks, total, before = set(model.state_dict()), method.ranks(model), numbers(model), model(images)
    method.adapt_(model)
    torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-5)
    assert numbers(model) < total / 2
    assert method.ranks(model) == ranks
    answers = tuned(model)(images)
    assert not torch.allclose(answers, before, atol=1e-2)
    method.merge_(model)
    torch.testing.assert_close(model(images), answers, rtol=1e-5, atol=1e-5)
    assert (set(model.state_dict()), method.ranks(model)) == (names, ranks)
    assert numbers(model) == total
    torch.testing.assert_close(method.deploy(model)(images), answers, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", ["test_vit", "test_efficientnet", "test_nfnet"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_attention_depthwise_and_standardised_layers_are_merged_exactly(name: str, arch: str) -> None:
    model, method, images = start("dense", arch), METHODS.get(name)(), torch.rand(2, *IMAGE)
    before = model(images)
    method.adapt_(model)
    torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-5)
    answers = tuned(model)(images)
    method.merge_(model)
    torch.testing.assert_close(model(images), answers, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_added_numbers_and_the_classifier_train(name: str) -> None:
    model, method = start("matrix"), METHODS.get(name)()
    method.adapt_(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(method.parameter_groups(model, 0.1), lr=0.1)
    for _ in range(2):  # B = 0 leaves A without a gradient in the first
        optimizer.zero_grad()
        method.loss(model, torch.rand(8, *IMAGE), torch.arange(8))["loss"].backward()
        optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    expected = {key for key, p in model.named_parameters() if p.requires_grad}
    assert moved == expected
    assert all("parametrizations" in key or key.startswith("fc.") for key in moved)


@pytest.mark.parametrize("tau", [None, 0.1])
def test_svf_keeps_the_sum_of_singular_values(tau: float | None) -> None:
    weight, core = torch.randn(12, 5, 3, 3), torch.diag(torch.rand(7) + 0.5)
    for scale, value in ((WeightScale(weight, tau), weight), (CoreScale(core.diagonal(), tau), core)):
        with torch.no_grad():
            scale.p += torch.randn_like(scale.p)
        before, after = (torch.linalg.svdvals(x.flatten(1)) for x in (value, scale(value)))
        torch.testing.assert_close(after.sum(), before.sum())
        if tau is None:
            assert not torch.allclose(after, before, rtol=0.1)
        else:
            assert after.max() / after.min() <= 1 + tau + 1e-4


@pytest.mark.parametrize("name", ["minor", "principal"])
@torch.no_grad()
def test_the_other_components_stay(name: str) -> None:
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 10))
    method, weight = METHODS.get(name)(rank=3), model[0].weight.clone()
    model = factorize(model, {"0": 12})
    u, s, vh = torch.linalg.svd(weight)
    stay = slice(0, 9) if name == "minor" else slice(3, 12)
    moved = slice(9, 12) if name == "minor" else slice(0, 3)
    method.adapt_(model)
    tuned(model)
    method.merge_(model)
    change = model[0].weight - (u[:, :12] * s[:12]) @ vh[:12]
    assert torch.linalg.matrix_rank(change, rtol=1e-4) <= 6
    rest = model[0].weight - (u[:, stay] * s[stay]) @ vh[stay]
    assert torch.linalg.matrix_rank(rest, rtol=1e-4) == 3
    assert model[0].rank == 12
    assert moved != stay


@torch.no_grad()
def test_psoft_rotates() -> None:
    layer = FactorizedLinear(nn.Linear(20, 16), 8)
    rotation = METHODS.get("psoft")().adapters(layer)["S"]
    rotation.angles += torch.randn_like(rotation.angles)
    r = rotation.orthogonal()
    torch.testing.assert_close(r @ r.T, torch.eye(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(*(torch.linalg.svdvals(x) for x in (rotation(layer.S), layer.S)))


def test_the_cost_of_a_cut_is_that_of_the_quadratic_model() -> None:
    """<G, D> + tr(D H D^T) / 2 with column j of D fixed to -x_j, against the free minimum; both by solving."""
    torch.manual_seed(0)
    factor = PrunableFactor(torch.randn(6, 4))
    for _ in range(9):
        factor.x.grad = torch.randn(6, 4) + 0.3
        factor.gather_()
    columns = torch.arange(4)
    inverse, newton = factor._newton(columns)
    h, g = torch.linalg.inv(inverse), newton @ torch.linalg.inv(inverse)
    x = factor.x.detach().double()

    def loss(d: Tensor) -> Tensor:
        return (g * d).sum() + (d @ h * d).sum() / 2

    costs = factor.costs(columns)
    for j in range(4):
        free = [k for k in range(4) if k != j]
        d = torch.zeros_like(x)
        d[:, j] = -x[:, j]
        d[:, free] = -(g[:, free] + d[:, [j]] @ h[[j]][:, free]) @ torch.linalg.inv(h[free][:, free])
        torch.testing.assert_close(costs[j], loss(d) - loss(-newton))


def test_pruning_drops_what_the_loss_does_not_use() -> None:
    torch.manual_seed(0)
    update = PrunedUpdate(torch.randn(10, 8), width=6, rank=2)
    useful = torch.tensor([1, 4])
    with torch.no_grad():
        update.B.x.copy_(0.01 * torch.randn(10, 6))
        update.B.x[:, useful] = torch.randn(10, 2)
        update.A.x[:, useful] *= 3
    target = update(torch.zeros(10, 8)).detach() + 0.01 * torch.randn(10, 8)
    for _ in range(10):
        update.zero_grad()
        inputs = torch.randn(32, 8)
        (inputs @ (update(torch.zeros(10, 8)) - target).T).square().sum().backward()
        update.gather_()
    update.prune_(2)
    assert update.components == 2
    assert update.B.kept.nonzero().flatten().tolist() == useful.tolist() == update.A.kept.nonzero().flatten().tolist()


def test_a_run_has_the_form_of_its_start(train_tiny) -> None:
    run = train_tiny("svf", adversary="n_fgsm", lr=0.01)
    card = run.card
    assert card.training["start"]["name"] == START
    assert card.training["trained_numbers"] == 1475  # 305 singular values and the classifier's factors
    assert card.params == 183_930
    assert card.evaluations[0].accuracy > 0.7
    again = train_tiny("robust_lowrank", "again", init=str(run.folder), lr=0.001, trainer={"limit_train_batches": 1})
    assert again.card.ranks == card.ranks


def test_a_killed_pruning_goes_on_to_the_same_bits(train_tiny, dying_at, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from zoo.training.trainer import resume

    method = METHODS.get("pruned_lora")(start=12, rank=4, end=0.9)
    options = {"epochs": 2, "lr": 0.01, "init": START}
    whole = train_tiny(method, "whole", **options)
    with dying_at(17):
        train_tiny(method, "killed", **options)
    from zoo.cli._parser import Parser
    from zoo.cli.train import read_recipe

    folder = tmp_path / "killed"
    config, parts, _ = read_recipe(Parser(), ["--config", str(folder / "config.yaml")])
    again = resume(folder, config, *parts.values())
    first, second = (load_file(run.folder / "model.safetensors") for run in (whole, again))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_new_classes_get_a_new_classifier(train_tiny, tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", class_names=("a", "b", "c"))
    run = train_tiny(Svf(), init=str(base.folder), lr=0.01)
    assert len(run.card.class_names) == 10
    assert run.card.ranks == base.card.ranks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": None}, "svf fine-tunes a trained network: name it by --init"),
        ({"awp": 0.005}, "--awp moves whole weights, and --method svf keeps"),
        ({"balance": True}, "--balance moves whole weights"),
        ({"weights": Path(START)}, f"would be dense: give --init {START}, which keeps its ranks"),
    ],
)
def test_a_start_is_needed(changes: dict, message: str, train_tiny) -> None:
    with pytest.raises(UserError, match=message):
        train_tiny("svf", **changes)


def test_layers_without_channels_are_refused(train_tiny, tmp_path: Path) -> None:
    pruned = train_tiny("magnitude_prune", "pruned", compression=0.5)
    with pytest.raises(UserError, match=r"layers that lost channels, \S+ for one.*leave --method out"):
        train_tiny("svf", "tuned", init=str(pruned.folder))
    assert not (tmp_path / "tuned").exists()


def test_the_form_of_a_start_comes_with_it(tmp_path: Path) -> None:
    from zoo.cli._request import Request

    base = make_run(tmp_path / "base")
    base.save_card(base.card.model_copy(update={"method_options": {"convolution": "tucker"}}))
    settings = Request.read(["--init", str(base.folder), "--method", "svf"]).settings
    assert settings["method"] == {"name": "svf", "convolution": "tucker"}
    assert Request.read(["--init", str(base.folder), "--method", "dense"]).settings["method"] == {}


@pytest.mark.parametrize("options", [{"tau": -1.0}, {"tau": float("nan")}])
def test_impossible_options_of_svf_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match="tau"):
        Svf(**options)


@pytest.mark.parametrize("name", ["minor", "principal", "psoft", "pruned_lora"])
def test_a_rank_below_one_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="rank 0 is invalid"):
        METHODS.get(name)(rank=0)


def test_a_budget_is_refused() -> None:
    with pytest.raises(UserError, match="compress first"):
        Svf().plan(start("dense"), Budget(compression=0.5))
