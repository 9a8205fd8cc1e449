"""What holds on a GPU as it does on a CPU; skipped where there is none."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from constrained_module import UsersModule, Watch
from torch import nn

from zoo.adversaries import ADVERSARIES
from zoo.attacks import fp32
from zoo.attacks.autoattack import AutoAttack
from zoo.attacks.fgsm import FGSM
from zoo.attacks.pgd import PGD
from zoo.backbone.folded import folded
from zoo.callbacks import OrthonormalRetraction, SpectrumClamp
from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.evaluation import Sweep, evaluate
from zoo.linalg import blocks, clamp_each, clamp_spectrum, orthonormality_error, retract_each
from zoo.lowrank.layers import FactorizedConv2d, FactorizedLinear, factorized_layers
from zoo.methods import METHODS
from zoo.probes import PROBES, ProbeContext
from zoo.publishing.measure import EvaluationSplit
from zoo.regularizers import REGULARIZERS
from zoo.runs.config import TrainConfig
from zoo.runs.run import Run
from zoo.training.trainer import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
RANKS = (8, 16, 27, 32, 48, 64, 112)
"""Ranks of the layers of a ResNet-18 at 75 %."""


def near_orthonormal(n: int, r: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(n, r))[0] + 0.02 * torch.randn(n, r) / r**0.5


@pytest.mark.parametrize("rank", RANKS)
def test_retraction_and_clamp_agree_with_the_cpu(rank: int) -> None:
    xs = [near_orthonormal(n, rank) for n in (128, 576, 4608)]
    here, r_here = retract_each(xs)
    there, r_there = retract_each([x.cuda() for x in xs])
    for a, b in zip(here, there, strict=True):
        assert orthonormality_error(b) <= 1e-5
        torch.testing.assert_close(a, b.cpu(), atol=1e-5, rtol=0)
    torch.testing.assert_close(r_here, r_there.cpu(), atol=1e-5, rtol=0)
    cores = torch.linalg.qr(torch.randn(3, rank, rank))[0] * (1 + 0.3 * torch.rand(3, 1, rank))
    expected, values = clamp_spectrum(cores, 0.1)
    found, _ = clamp_spectrum(cores.cuda(), 0.1)
    torch.testing.assert_close(found.cpu(), expected, atol=2e-5, rtol=0)
    assert float(torch.linalg.cond(found.double()).max()) <= 1.1
    assert float((values.amax(-1) / values.amin(-1)).max()) <= 1.1


def test_layers_of_all_ranks_go_in_one_batch() -> None:
    xs = [near_orthonormal(576, rank) for rank in RANKS]
    found, triangles = retract_each([x.cuda() for x in xs])
    for x, q, r in zip(xs, found, blocks(triangles, RANKS), strict=True):
        assert orthonormality_error(q) <= 1e-5
        torch.testing.assert_close(q @ r, x.cuda(), atol=1e-5, rtol=0)
    cores = [torch.linalg.qr(torch.randn(r, r))[0] * (1 + 0.3 * torch.rand(r)) for r in RANKS]
    clamped, conditions = clamp_each([core.cuda() for core in cores], 0.1)
    for core, s in zip(cores, clamped, strict=True):
        torch.testing.assert_close(s.cpu(), clamp_spectrum(core, 0.1)[0], atol=5e-5, rtol=0)
        assert float(torch.linalg.cond(s.double())) <= 1.1
    assert float(conditions.max()) <= 1.1


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_every_step_is_exact_whatever_the_precision(precision: str) -> None:
    """TF32 in the user's products, autocast and a gradient scaler leave retraction and clamp alone."""
    watch = Watch()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        data = torch.utils.data.TensorDataset(torch.rand(64, 1, 8, 8), torch.randint(0, 10, (64,)))
        trainer = pl.Trainer(
            max_steps=8, accelerator="gpu", devices=1, precision=precision, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
            callbacks=[OrthonormalRetraction(), SpectrumClamp(0.1), watch],
        )  # fmt: skip
        trainer.fit(UsersModule(), torch.utils.data.DataLoader(data, batch_size=8))
    finally:
        torch.set_float32_matmul_precision(before)
    assert max(watch.orthonormality) <= 1e-5
    assert max(watch.condition) <= 1.1


@pytest.fixture
def train_on_gpu(train_tiny):
    def run(*args, **changes) -> Run:
        return train_tiny(*args, **({"device": "cuda", "precision": "auto"} | changes))

    return run


@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_trains(method: str, train_on_gpu) -> None:
    run = train_on_gpu(method, adversary="pgd", steps=2, epochs=2, ema=0.9)
    assert run.card.training["precision"] == "bf16-mixed"
    assert torch.cuda.get_device_name() in run.card.provenance.hardware
    assert all(p.isfinite().all() for p in run.trained_model().parameters())
    if method == "robust_lowrank":
        assert run.card.max_condition_number <= 1.1 + 1e-4


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("adversary", ADVERSARIES.names())
def test_every_adversary_trains_with_moved_weights(adversary: str, precision: str, train_on_gpu) -> None:
    run = train_on_gpu("robust_lowrank", adversary=adversary, steps=2, awp=0.005, precision=precision)
    assert run.card.max_condition_number <= 1.1 + 1e-4
    for _, layer in factorized_layers(run.trained_model()):
        assert max(orthonormality_error(layer.U), orthonormality_error(layer.V)) <= 1e-5


@pytest.mark.parametrize("saliency", ["second_order", "gradient", "spectrum"])
def test_ranks_fall(saliency: str, train_on_gpu) -> None:
    method = METHODS.get("robust_lowrank")(rank_budget="adaptive", saliency=saliency)
    run = train_on_gpu(method, epochs=2, ema=0.9, compression=0.6)
    assert run.card.training["cuts"]
    assert 0.6 <= 1 - run.card.params / run.card.dense_params <= 0.62


def test_ranks_by_sensitivity(train_on_gpu) -> None:
    method = METHODS.get("robust_lowrank")(rank_budget="adaptive", allocation="sensitivity")
    run = train_on_gpu(method, epochs=2, compression=0.6, adversary="pgd", steps=1)
    assert 0.6 <= 1 - run.card.params / run.card.dense_params <= 0.62


@pytest.mark.parametrize("name", [n for n in REGULARIZERS.names() if n != "none"])
def test_every_regularizer_trains(name: str, tmp_path: Path) -> None:
    config = TrainConfig(arch="vgg11", epochs=1, n=60, device="cuda", out=tmp_path / "run")
    run = train(config, METHODS.get("robust_lowrank")(), regularizer=REGULARIZERS.get(name)())
    assert run.card.max_condition_number <= 1.1 + 1e-4


def test_a_killed_training_resumes_with_what_it_had(train_on_gpu, dying_at, tmp_path: Path) -> None:
    """On a GPU sums have no fixed order, so weights agree to what a few steps make of roundings."""
    whole = train_on_gpu("robust_lowrank", "a", epochs=2, precision="32-true", momentum=0.5, lr=0.01)
    with dying_at(14):
        train_on_gpu("robust_lowrank", "b", epochs=2, precision="32-true", momentum=0.5, lr=0.01)
    zoo(["train", "--resume", str(tmp_path / "b")])
    again = Run(tmp_path / "b")
    a, b = (torch.cat([p.detach().flatten() for p in run.model().parameters()]) for run in (whole, again))
    assert (a - b).norm() <= 1e-2 * a.norm()


@pytest.mark.parametrize("method", ["dense", "robust_lowrank"])
def test_a_captured_step_is_the_step(method: str, train_on_gpu) -> None:
    """The same training but for sums without a fixed order: adversary, moved weights, random starts, statistics."""
    recipe = {"precision": "32-true", "adversary": "trades", "steps": 2, "awp": 0.005, "lr": 0.01, "momentum": 0.5}
    plain = train_on_gpu(method, "plain", **recipe)
    captured = train_on_gpu(method, "captured", cuda_graph=True, **recipe)
    a, b = (torch.cat([x.detach().flatten() for x in run.model().state_dict().values()]) for run in (plain, captured))
    assert (a - b).norm() <= 1e-2 * a.norm()


UNCAPTURED = ("csam", "rank_adaptive", "robust_rank_adaptive")


@pytest.mark.parametrize("method", [name for name in METHODS.names() if name not in UNCAPTURED])
def test_every_method_trains_captured(method: str, train_on_gpu) -> None:
    run = train_on_gpu(method, adversary="fgsm_rs", epochs=2, ema=0.9, cuda_graph=True)
    assert all(p.isfinite().all() for p in run.trained_model().parameters())


@pytest.mark.parametrize("method", UNCAPTURED)
def test_what_a_graph_cannot_hold_is_refused(method: str, train_on_gpu, tmp_path: Path) -> None:
    """A transform drawn on the host at each step; shapes that change every few steps."""
    with pytest.raises(UserError, match=r"leave --cuda-graph out"):
        train_on_gpu(method, cuda_graph=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_compiled_network_trains(train_on_gpu) -> None:
    run = train_on_gpu("robust_lowrank", adversary="trades", steps=2, compile=True, ema=0.9)
    assert run.card.max_condition_number <= 1.1 + 1e-4


def test_a_training_that_diverges_is_told_so(train_on_gpu) -> None:
    with pytest.raises(UserError, match=r"lr|learning rate"):
        train_on_gpu("robust_lowrank", lr=1e30, epochs=4)


def test_verdicts_are_those_of_the_cpu(train_on_gpu) -> None:
    run = train_on_gpu("robust_lowrank", epochs=4)
    split = EvaluationSplit.of(run.card).first(200)
    images, labels = split.images, split.labels
    sweeps = [Sweep(FGSM(norm="Linf"), (0.05, 0.1)), Sweep(PGD(norm="L2", steps=10, random_start=False), (0.5, 1.0))]
    network = folded(run.model(), run.card.image_shape)
    here = evaluate(network, images, labels, sweeps, device="cpu")
    there = evaluate(network, images, labels, sweeps, device="cuda")
    assert here[0].accuracy > 0.5
    for a, b in zip(here, there, strict=True):
        assert abs(a.accuracy - b.accuracy) <= 0.01


@pytest.mark.parametrize("gradients", ["fp32", "bf16"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_autoattack_is_exact_on_a_linear_classifier(norm: str, gradients: str) -> None:
    """Two classes' distance is |difference of logits| / dual norm of the difference of weights."""
    shape, classes, n = (3, 8, 8), 5, 64
    weight = torch.randn(classes, 192)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, classes, bias=False)).cuda().eval()
    with torch.no_grad():
        model[1].weight.copy_(weight)
    images = 0.5 + 0.02 * torch.randn(n, *shape)  # far from 0 and 1, which no attack then reaches
    logits = images.flatten(1) @ weight.T
    labels = logits.argmax(1)
    differences = weight[labels][:, None] - weight[None]
    lengths = differences.abs().sum(2) if norm == "Linf" else differences.norm(dim=2)
    gaps = logits.gather(1, labels[:, None]) - logits
    distances = torch.where(lengths > 0, gaps / lengths.clamp_min(1e-9), torch.inf).amin(1)
    eps = float(distances.median())
    clear = (distances - eps).abs() > 0.02 * eps  # a bf16 gradient may miss the boundary by a rounding
    found = AutoAttack(norm=norm)(
        model, images.cuda(), labels.cuda(), [eps], batch_size=32, gradients=gradients
    ).robust[0]
    torch.testing.assert_close(found.cpu()[clear], (distances > eps)[clear])


@pytest.mark.parametrize("name", PROBES.names())
def test_every_probe_runs(name: str, train_on_gpu) -> None:
    run = train_on_gpu("robust_lowrank")
    split = EvaluationSplit.of(run.card).first(20)
    images, labels = split.images, split.labels
    network = folded(run.model(), run.card.image_shape).cuda()
    probe = PROBES.get(name)()
    context = ProbeContext(network, images, labels, 0.01, 20)
    case = probe.cases(context)[0]
    assert probe.passed(context, case).shape == (20,)


def test_fp32_means_fp32() -> None:
    """A product of 2,048 terms in TF32 would be off by 1e-3."""
    torch.backends.cudnn.allow_tf32 = True
    layers = (FactorizedLinear(nn.Linear(2048, 512), 64), FactorizedConv2d(nn.Conv2d(256, 256, 3), 64))
    for layer, x in zip(layers, (torch.randn(64, 2048), torch.randn(4, 256, 8, 8)), strict=True):
        exact = layer.double()(x.double())
        with fp32(torch.device("cuda")), torch.no_grad():
            found = layer.float().cuda()(x.cuda())
        assert (found.cpu() - exact).norm() <= 1e-5 * exact.norm()
