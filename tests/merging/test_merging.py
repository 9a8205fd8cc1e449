"""Merging runs of one start: closed forms of the rules, and what a merge writes and refuses."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from make_run import make_run
from torch import Tensor

from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.lowrank.layers import factorized_layers
from zoo.merging import RULES, MergeConfig, merge_runs
from zoo.merging.merge import multiplied_out
from zoo.merging.rules import mean
from zoo.merging.rules._base import Accuracies, Candidates
from zoo.merging.rules.adarank import START, TEMPERATURE, gated
from zoo.merging.rules.tsv_m import polar
from zoo.runs.run import Run, save_weights

SMALL = {"n": 30, "val_images": 30, "device": "cpu"}


def matrices(runs: int = 3, rank: int = 2) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    start = torch.randn(12, 9)
    return start, start + torch.randn(runs, 12, rank) @ torch.randn(runs, rank, 9)


def offspring(start: Run, folder: Path, seed: int, size: float = 0.02) -> Run:
    """Write a run that began as another one, and moved a little within its ranks."""
    torch.manual_seed(seed)
    model = start.trained_model()
    with torch.no_grad():
        for p in model.parameters():
            p += size * p.norm() / p.numel() ** 0.5 * torch.randn_like(p)
    folder.mkdir()
    begun = {"start": {"name": start.name, "sha256": start.card.weights.sha256}}
    card = start.card.model_copy(update={"weights": save_weights(model, folder), "training": begun})
    card.save(folder / "card.json")
    return Run(folder)


@pytest.fixture
def family(tmp_path: Path) -> tuple[Run, Run, Run]:
    start = make_run(tmp_path / "start")
    return start, offspring(start, tmp_path / "one", 1), offspring(start, tmp_path / "two", 2)


@pytest.mark.parametrize("name", ["average", "mix", "cart"])
def test_equal_runs_are_their_merge(name: str) -> None:
    start, runs = matrices(1)
    torch.testing.assert_close(RULES.get(name)().matrix(start, runs.repeat(3, 1, 1)), runs[0])


@pytest.mark.parametrize("name", ["iso_c", "tsv_m", "adarank"])
def test_runs_that_did_not_move_are_their_start(name: str) -> None:
    start, _ = matrices()
    merged = RULES.get(name)().matrix(start, start.repeat(3, 1, 1))
    torch.testing.assert_close(merged, start, atol=1e-5, rtol=0)


def test_iso_c_makes_the_change_isotropic_and_keeps_its_nuclear_norm() -> None:
    start, runs = matrices()
    before = torch.linalg.svdvals((runs - start).sum(0))
    after = torch.linalg.svdvals(RULES.get("iso_c")().matrix(start, runs) - start)
    torch.testing.assert_close(after, before.mean().expand(9))


def test_tsv_m_adds_changes_that_do_not_interfere() -> None:
    """Of runs that moved in orthogonal directions each change is added whole."""
    torch.manual_seed(0)
    u, v = polar(torch.randn(12, 4)), polar(torch.randn(4, 4))
    start, s = torch.randn(12, 4), torch.tensor([4.0, 3.0])
    runs = torch.stack([start + (u[:, i : i + 2] * s) @ v[:, i : i + 2].T for i in (0, 2)])
    merged = RULES.get("tsv_m")().matrix(start, runs)
    torch.testing.assert_close(merged - start, (runs - start).sum(0), atol=1e-5, rtol=1e-5)


def test_cart_keeps_the_largest_components_of_each_distance() -> None:
    start, runs = matrices(2, rank=1)
    whole = RULES.get("cart")(share=1.0).matrix(start, runs)
    torch.testing.assert_close(whole, runs.mean(0), atol=1e-5, rtol=1e-5)  # the distances of two runs cancel
    start, runs = matrices(3, rank=1)
    change = RULES.get("cart")(share=1 / 9).matrix(start, runs) - runs.mean(0)
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 3
    expected = []
    for distance in runs - runs.mean(0):
        u, s, vh = torch.linalg.svd(distance)
        expected.append(s[0] * torch.outer(u[:, 0], vh[0]))
    torch.testing.assert_close(change, torch.stack(expected).sum(0), atol=1e-4, rtol=1e-4)


def test_a_gate_is_hard_and_its_gradient_soft() -> None:
    s = torch.tensor([3.0, 2.0, 1.0], requires_grad=True)
    logits = torch.tensor([0.5, -0.5, 0.1], requires_grad=True)
    value = gated(s, logits)
    assert value.tolist() == [3.0, 0.0, 1.0]
    ds, dl = torch.autograd.grad(value.sum(), (s, logits))
    m = torch.sigmoid(logits.detach() / TEMPERATURE)
    torch.testing.assert_close(ds, m)
    torch.testing.assert_close(dl, s.detach() * m * (1 - m) / TEMPERATURE)


def candidates(measure=None, classes: int = 2) -> Candidates:
    """Return two runs of a linear network, one of which answers at random, and images of two classes."""
    torch.manual_seed(0)
    network = torch.nn.Sequential()
    network.add_module("backbone", torch.nn.Linear(6, classes))
    sure = torch.randn(classes, 6)
    start = {"weight": torch.zeros(classes, 6), "bias": torch.zeros(classes)}
    runs = [{"weight": 3 * sure, "bias": start["bias"]}, {"weight": -2.5 * sure, "bias": start["bias"]}]
    images = torch.randn(64, 6)
    return Candidates(start, runs, ["sure", "against"], frozenset({"weight"}), network, measure, lambda: iter([images]))


def test_adarank_closes_what_makes_the_network_unsure() -> None:
    merged = RULES.get("adarank")(scale=1.0, steps=40).merge(candidates())
    assert merged.outcome["entropy"][1] < merged.outcome["entropy"][0] / 2
    assert 0 < merged.outcome["open"] < merged.outcome["of"]


def test_greedy_average_leaves_out_what_lowers_the_accuracy() -> None:
    states = [{"weight": torch.tensor([float(i)])} for i in range(3)]

    def measure(state: dict[str, Tensor]) -> Accuracies:
        return Accuracies(1.0, 1 - abs(state["weight"].item() - 0.4))  # the run 0 and 1 together are best

    some = dataclasses.replace(candidates(measure), runs=states, names=["a", "b", "c"])
    merged = RULES.get("average")().merge(some)
    assert merged.outcome["kept"] == ["a", "b"]
    torch.testing.assert_close(merged.state["weight"], torch.tensor([0.5]))


@pytest.mark.parametrize(("dial", "kept"), [(0.0, 0), (1.0, 1)])
def test_the_dial_goes_from_the_accurate_to_the_robust_run(dial: float, kept: int) -> None:
    states = [{"weight": torch.tensor([float(i)])} for i in range(2)]

    def measure(state: dict[str, Tensor]) -> Accuracies:
        at = state["weight"].item()
        return Accuracies(1 - at, at)

    some = dataclasses.replace(candidates(measure), runs=states, names=["clean", "robust"])
    merged = RULES.get("mix")(robustness=dial, population=2, generations=1).merge(some)
    assert merged.state["weight"].item() == pytest.approx(kept, abs=1e-6)


def test_svf_runs_mixed_are_one_with_mixed_factors() -> None:
    """Their U and V are those of the start, so a mean of products is a product with the mean of the values."""
    from zoo.lowrank.factorize import factorize
    from zoo.methods.svf import Svf

    torch.manual_seed(0)
    base, method, states, scales = torch.nn.Sequential(torch.nn.Linear(20, 16), torch.nn.Linear(16, 4)), Svf(), [], []
    factorize(base, {"0": 8})
    for _ in range(2):
        model = copy.deepcopy(base)
        method.adapt_(model)
        scale = model[0].parametrizations["S"][0]
        with torch.no_grad():
            scale.p += torch.randn(8)
        scales.append(scale.factors().detach())
        states.append({"weight": model[0].weight.detach()})
    mixed = torch.linalg.svdvals(mean(states, [0.3, 0.7])["weight"])[:8]
    expected = (scale.s * (0.3 * scales[0] + 0.7 * scales[1])).sort(descending=True)[0]
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-5)


def test_the_average_of_a_run_with_itself_is_the_run(family, tmp_path: Path) -> None:
    _, one, _ = family
    merged = merge_runs(
        [one.folder, one.folder], RULES.get("average")(greedy=False), MergeConfig(out=tmp_path / "merged", **SMALL)
    )
    before, after = multiplied_out(one), multiplied_out(merged)
    weights = [name for name, _ in factorized_layers(one.trained_model().backbone)]
    assert weights
    for name in weights:
        torch.testing.assert_close(after[f"{name}.weight"], before[f"{name}.weight"], atol=1e-5, rtol=1e-4)
    assert merged.card.ranks == one.card.ranks
    assert merged.card.applied[-1]["outcome"]["runs"] == {"one": one.card.weights.sha256}
    images = torch.rand(2, *merged.card.image_shape)
    with torch.no_grad():
        torch.testing.assert_close(merged.model()(images), merged.trained_model()(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", RULES.names())
def test_every_rule_writes_a_run_of_the_budget(name: str, family, tmp_path: Path, capsys) -> None:
    start, one, two = family
    fast = {"adarank": "(steps=2)", "mix": "(population=2,generations=1)"}.get(name, "")
    zoo(["merge", str(one.folder), str(two.folder), "--method", name + fast, "--start", str(start.folder),
         "--compression", "0.7", "--n", "30", "--val-images", "30", "--out", str(tmp_path / "out")])  # fmt: skip
    merged = Run(tmp_path / "out")
    assert 0.7 <= merged.card.compression <= 0.72
    assert merged.card.applied[-1]["name"] == name
    assert merged.card.evaluations
    assert "saved in" in capsys.readouterr().out


def test_condition_numbers_are_bounded_on_request(family, tmp_path: Path) -> None:
    start, one, two = family
    config = MergeConfig(out=tmp_path / "merged", tau=0.5, start=str(start.folder), **SMALL)
    merged = merge_runs([one.folder, two.folder], RULES.get("average")(greedy=False), config)
    assert merged.card.method == "robust_lowrank"
    conditions = [layer.condition_number() for _, layer in factorized_layers(merged.trained_model())]
    assert max(conditions) <= 1.5 + 1e-4


def test_the_start_itself_can_take_part(family, tmp_path: Path) -> None:
    start, one, _ = family
    config = MergeConfig(out=tmp_path / "merged", **SMALL)
    merged = merge_runs([start.folder, one.folder], RULES.get("average")(shares="0.5,0.5"), config)
    assert merged.card.applied[-1]["outcome"]["shares"] == [0.5, 0.5]


def test_runs_of_other_starts_are_refused_with_the_barrier(family, tmp_path: Path) -> None:
    _, one, _ = family
    stranger = offspring(make_run(tmp_path / "base", compression=0.5), tmp_path / "stranger", 5)
    begun = {"start": {"name": "else", "sha256": "0" * 64}}
    stranger.save_card(stranger.card.model_copy(update={"training": begun}))
    with pytest.raises(UserError, match=r"did not begin as one network: halfway .* barrier of -?\d+\.\d points; merge"):
        merge_runs([one.folder, stranger.folder], RULES.get("average")(), MergeConfig(out=tmp_path / "out", **SMALL))
    assert not (tmp_path / "out").exists()


def test_other_architectures_and_data_are_refused_with_what_fits(family, tmp_path: Path) -> None:
    _, one, two = family
    other = make_run(tmp_path / "other", arch="test_vit")
    with pytest.raises(
        UserError, match=r"other is a test_vit on digits and one a test_resnet on digits.*one and two fit"
    ):
        merge_runs([one.folder, two.folder, other.folder], RULES.get("iso_c")(), MergeConfig(**SMALL))
    with pytest.raises(UserError, match="at least two runs"):
        merge_runs([one.folder], RULES.get("iso_c")(), MergeConfig(**SMALL))


def test_a_start_that_has_changed_is_refused(family) -> None:
    _, one, two = family
    with pytest.raises(UserError, match="give --start"):
        merge_runs([one.folder, two.folder], RULES.get("iso_c")(), MergeConfig(**SMALL))
    config = MergeConfig(start=str(one.folder), **SMALL)
    with pytest.raises(UserError, match="not the network that one began as"):
        merge_runs([one.folder, two.folder], RULES.get("iso_c")(), config)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("average", {"shares": "0.5,0.6"}, "sum to 1.1"),
        ("average", {"shares": "a,b"}, "give a number for each run"),
        ("cart", {"share": 0.0}, "share 0.0"),
        ("mix", {"robustness": 2.0}, "robustness 2.0"),
        ("adarank", {"steps": 0}, "at least one step"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RULES.get(name)(**options)


def test_gates_start_open() -> None:
    assert START > 0
