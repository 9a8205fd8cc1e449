"""What is measured on a network agrees with what it says, and what the command writes."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from make_run import make_run
from torch import Tensor, nn

from zoo.attacks.apgd import APGD
from zoo.attacks.autoattack import AutoAttack
from zoo.attacks.cr import CR
from zoo.attacks.fab_t import FABT
from zoo.attacks.fgsm import FGSM
from zoo.attacks.pgd import PGD
from zoo.attacks.square import Square
from zoo.backbone import create_backbone, with_normalization
from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.evaluation import (
    EPS,
    QUICK,
    Outcomes,
    Sweep,
    choose_sweeps,
    condition_numbers,
    evaluate,
    folded,
    identity,
    parse_radii,
    print_card,
    quick_evaluation,
)
from zoo.evaluation.curve import draw_curve
from zoo.lowrank.factorize import factorize, fold
from zoo.runs.records import Evaluation
from zoo.runs.run import CARD, Run
from zoo.runtime.complexity import count_macs


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def problem() -> tuple[nn.Module, Tensor, Tensor]:
    """A linear classifier of 60 images, most of which it gets right."""
    torch.manual_seed(0)
    model = with_normalization(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (0.5,), (0.2,)).eval()
    images = torch.randint(0, 256, (60, 1, 4, 4), dtype=torch.uint8)
    labels = model(images.float() / 255).argmax(1)
    labels[::10] = (labels[::10] + 1) % 3
    return model, images, labels


# Accuracies.


def test_clean_accuracy_comes_first_and_is_the_share_of_right_answers(problem):
    clean = evaluate(*problem, [])[0]
    assert clean == Evaluation(attack="clean", norm=None, eps=0, accuracy=0.9, n=60)


def test_every_sweep_and_radius_gets_an_evaluation_with_the_attack_s_settings(problem):
    sweeps = [Sweep(FGSM(), (0.0, 0.01)), Sweep(PGD(norm="L2", steps=4), (0.3,))]
    found = evaluate(*problem, sweeps)[1:]
    assert [(e.attack, e.norm, e.eps) for e in found] == [
        ("fgsm", "Linf", 0.0),
        ("fgsm", "Linf", 0.01),
        ("pgd", "L2", 0.3),
    ]
    assert found[0].accuracy == 0.9
    assert found[2].options == {"steps": 4, "relative_step": 2.5, "random_start": True, "restarts": 1, "seed": 0}
    rebuilt = PGD(norm="L2", **found[2].options)
    assert evaluate(*problem, [Sweep(rebuilt, (0.3,))])[1] == found[2]


@settings(max_examples=10, deadline=None)
@given(batch_size=st.integers(1, 80))
def test_figures_do_not_depend_on_the_batch_size(problem, batch_size):
    sweeps = [Sweep(FGSM(), (0.01, 0.05)), Sweep(PGD(random_start=False), (0.05,))]
    assert evaluate(*problem, sweeps, batch_size=batch_size) == evaluate(*problem, sweeps)


def test_what_was_judged_is_not_judged_again(problem, tmp_path, monkeypatch):
    """After an interruption, an evaluation continues with the part of the ensemble that was not complete."""
    path, (_, images, labels) = tmp_path / "outcomes.npz", problem
    sweeps = [Sweep(PGD(steps=3, random_start=False), (0.01,)), Sweep(AutoAttack(), (0.02,))]
    expected = evaluate(*problem, sweeps)

    def killed(*_: object) -> Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Square, "perturb", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(*problem, sweeps, outcomes=Outcomes(path, "me"))
    with monkeypatch.context() as patch:
        for attack in (PGD, APGD, FABT):
            patch.setattr(attack, "perturb", killed)
        resumed = Outcomes(path, "me")
        assert evaluate(*problem, sweeps, outcomes=resumed) == expected
    verdicts = [resumed.get(name) for name in np.load(path).files if "autoattack" in name.lower()]
    assert [v.double().mean().item() for v in verdicts] == list(expected[2].parts.values())
    assert Outcomes(path, "another").get("clean") is None
    assert identity("a", images, labels) != identity("b", images, labels) != identity("b", images, labels + 1)


def test_a_killed_search_goes_on_where_it_was(problem, tmp_path, monkeypatch):
    """On a CPU verdicts are kept pool by pool, so that hours of Square on a large network are not lost."""
    path, sweeps, calls = tmp_path / "outcomes.npz", [Sweep(Square(queries=50), (0.05,))], []
    monkeypatch.setattr("zoo.evaluation.evaluator.POOL_MACS", 25 * 48 * 50)  # a pool of 25 images: the layer has 3 x 16
    monkeypatch.setattr("zoo.attacks._attacked_model.by_pixels", lambda _: 5)
    monkeypatch.setattr("zoo.attacks._attacked_model.images_at_once", lambda *_: 5)
    search = Square.perturb

    def killed_in_the_third(self: Square, *problem) -> Tensor:
        calls.append(len(problem[1]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return search(self, *problem)

    expected = evaluate(*problem, sweeps)
    with monkeypatch.context() as patch:
        patch.setattr(Square, "perturb", killed_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            evaluate(*problem, sweeps, outcomes=Outcomes(path, "me"))
        (name,) = set(np.load(path).files) - {"clean", "owner"}
        assert Outcomes(path, "me").get(name) is None
        assert evaluate(*problem, sweeps, outcomes=Outcomes(path, "me")) == expected
    assert calls == [25, 25, 4, 4]
    assert Outcomes(path, "me").get(name).double().mean().item() == expected[1].accuracy
    assert Outcomes(path, "me").begun(name) is None


def test_a_long_search_leaves_a_line_in_the_log_of_a_job(problem, monkeypatch, capsys):
    sweeps = [Sweep(PGD(steps=3), (0.01,))]
    evaluate(*problem, sweeps)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("zoo.evaluation.progress.LONG", 0.0)
    evaluate(*problem, sweeps, progress=False)
    assert capsys.readouterr().err == ""
    robust = evaluate(*problem, sweeps)[1].accuracy
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "clean: 60 of 60 images searched in 0 min, accuracy at most 90.0%"
    assert lines[1:] == [f"pgd Linf 0.01: 54 of 54 images searched in 0 min, accuracy at most {robust:.1%}"]


def test_a_damaged_file_of_outcomes_is_named(tmp_path):
    path = tmp_path / "outcomes.npz"
    Outcomes(path, "me").put("clean", torch.ones(500, dtype=torch.bool))
    truncated = path.read_bytes()[:-40]
    whole = path.read_bytes()
    for content in (b"PK no zip", truncated, b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"outcomes\.npz cannot be read"):
            Outcomes(path, "me")
    refused = 0
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        try:
            Outcomes(path, "me")
        except UserError:
            refused += 1
    assert refused > len(whole) / 2


def test_the_running_accuracy_is_shown_on_a_terminal_only(problem, capsys, monkeypatch):
    evaluate(*problem, QUICK[:1])
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    evaluate(*problem, QUICK[:1])
    assert "fgsm Linf" in capsys.readouterr().err
    evaluate(*problem, QUICK[:1], progress=False)
    assert capsys.readouterr().err == ""


def test_a_model_of_which_a_part_is_in_training_mode_is_refused_and_left_in_its_modes(problem):
    model = nn.Sequential(problem[0], nn.Dropout(0.5).train())
    model.training = False
    with pytest.raises(UserError, match="1 of the model is in training mode"):
        evaluate(model, *problem[1:], [])
    count_macs(model, tuple(problem[1].shape[1:]))
    assert [module.training for module in model] == [False, True]


def test_no_images_and_a_model_in_training_mode_are_refused(problem):
    model, images, labels = problem
    with pytest.raises(UserError, match="needs uint8 images"):
        evaluate(model, images.float() / 255, labels)
    with pytest.raises(UserError, match="needs uint8 images"):
        evaluate(model, images, labels[:-1])
    with pytest.raises(UserError, match="no images"):
        evaluate(model, images[:0], labels[:0])
    with pytest.raises(UserError, match="eval"):
        evaluate(nn.Sequential(model).train(), images, labels)
    model.eval()


def test_a_part_that_cannot_be_run_is_a_named_skip(problem, capsys):
    _, found = evaluate(*problem, [Sweep(AutoAttack(), (0.01,))], progress=False)
    assert list(found.parts) == ["apgd", "fab_t", "square"]
    assert found.skipped == {"apgd_t": "targeted APGD needs 4 classes, the model has 3"}


# Which attacks.


@pytest.mark.parametrize("wrong", [False, True])
def test_where_nothing_is_left_standing_the_other_parts_have_nothing_to_do(problem, wrong):
    model, images, labels = problem
    labels = (labels + 1) % 3 if wrong else labels  # wrong without an attack, or broken by the first one
    clean, found = evaluate(model, images, labels, [Sweep(AutoAttack(), (0.9,))], progress=False)
    assert (clean.accuracy == 0) == wrong
    assert found.accuracy == 0
    assert set(found.parts.values()) == {0.0}


def test_attacks_norms_and_radii_combine():
    assert choose_sweeps() == list(QUICK)
    assert choose_sweeps(["fgsm"], ["L2"]) == [Sweep(FGSM(norm="L2"), EPS["L2"])]
    assert choose_sweeps(["fgsm"], None, [0.03, 0.01]) == [Sweep(FGSM(), (0.01, 0.03))]
    assert choose_sweeps(["pgd"], ["L2"], [1.0], seed=7) == [Sweep(PGD(norm="L2", seed=7), (1.0,))]
    assert [s.name for s in choose_sweeps(["fgsm", "pgd", "fgsm"])] == ["fgsm Linf", "fgsm L2", "pgd Linf", "pgd L2"]


def test_radii_of_one_norm_or_of_each():
    assert parse_radii("8/255, 0.1") == [8 / 255, 0.1]
    assert parse_radii("Linf=8/255,0.1,L0=5, 10") == {"Linf": [8 / 255, 0.1], "L0": [5, 10]}
    found = {s.name: s.eps for s in choose_sweeps(["quick"], None, parse_radii("L2=2,1,L0=5"))}
    assert found == {"pgd L2": (1, 2), "sigma_zero L0": (5,)}
    found = {s.name: s.eps for s in choose_sweeps(["pgd"], ["Linf", "L2"], {"L2": [1]})}
    assert found == {"pgd Linf": EPS["Linf"], "pgd L2": (1,)}
    for text, words in (
        ("0.1,L2=1", "has radii without a norm"),
        ("L3=1", "norm 'L3'"),
        ("L2=", "is not a number"),
        ("L2=-1", "is invalid"),
    ):
        with pytest.raises(UserError, match=words):
            parse_radii(text)
    with pytest.raises(UserError, match="radii of L0 without the norm: the norms are Linf, L2"):
        choose_sweeps(["quick"], ["Linf", "L2"], {"L0": [5]})


def test_a_tier_has_norms_and_radii_of_its_own():
    (standard,) = choose_sweeps(["standard"], seed=3)
    assert standard == Sweep(AutoAttack(seed=3), (8 / 255,))
    assert choose_sweeps(["standard"], ["L2"]) == [Sweep(AutoAttack(norm="L2"), (0.5,))]
    assert choose_sweeps(["standard"], None, [0.01]) == [Sweep(AutoAttack(), (0.01,))]
    linf, l2 = choose_sweeps(["full"])
    assert (linf.attack.norm, l2.attack.norm) == ("Linf", "L2")
    assert [part.restarts for part in linf.attack.parts(10) if hasattr(part, "restarts")] == [5, 5, 5]
    assert choose_sweeps(["reliable"], seed=3) == [Sweep(CR(seed=3), (8 / 255,))]
    assert choose_sweeps(["reliable"], ["L2"]) == [Sweep(CR(norm="L2"), (0.5,))]
    with pytest.raises(UserError, match="did you mean standard"):
        choose_sweeps(["standart"])


# The network that is attacked.


def test_the_folded_network_computes_the_same_and_has_no_batch_norm():
    torch.manual_seed(0)
    model = create_backbone("test_resnet", 10, (3, 32, 32))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    model.eval()
    images = torch.rand(3, 3, 32, 32)
    exported = folded(model, (3, 32, 32))
    torch.testing.assert_close(exported(images), model(images), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in exported.modules())
    assert not any(parameter.requires_grad for parameter in exported.parameters())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


# Condition numbers.


def test_condition_numbers_are_those_of_the_matricised_weights():
    torch.manual_seed(0)
    bare = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 12, 3, groups=6), nn.Flatten(), nn.Linear(48, 5))
    wide = torch.linalg.svdvals(bare[0].weight.detach().flatten(1))
    found = condition_numbers(with_normalization(bare, (0.5, 0.5), (0.2, 0.2)))
    assert list(found) == ["0", "1", "3"]
    assert found["0"] == pytest.approx((wide[0] / wide[-1]).item(), rel=1e-4)
    assert found["1"] is None


@settings(max_examples=20, deadline=None)
@given(kappa=st.floats(1, 1e9), n=st.integers(2, 12), m=st.integers(2, 12))
def test_condition_numbers_are_accurate_however_large(kappa, n, m):
    rank = min(n, m)
    u, v = (torch.linalg.qr(torch.randn(k, rank, dtype=torch.float64))[0] for k in (n, m))
    layer = nn.Linear(m, n, dtype=torch.float64)
    layer.weight.data = u @ torch.logspace(0, -math.log10(kappa), rank, dtype=torch.float64).diag() @ v.T
    assert condition_numbers(nn.Sequential(layer))["0"] == pytest.approx(kappa, rel=1e-3)


def test_a_factorized_layer_counts_with_its_rank_and_a_singular_one_is_infinite():
    torch.manual_seed(0)
    model = factorize(nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 4)), {"0": 3})
    values = torch.linalg.svdvals(model[0].weight.detach())
    nn.init.zeros_(model[1].weight)
    found = condition_numbers(model)
    assert found["0"] == pytest.approx((values[0] / values[2]).item(), rel=1e-4)
    assert found["1"] == math.inf


# All of it.


def test_a_quick_evaluation_measures_accuracies_condition_numbers_and_the_lipschitz_bound():
    torch.manual_seed(0)
    trained = factorize(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)), {"1": 2})
    trained = with_normalization(trained, (0.5,), (0.25,)).eval()
    images, labels = torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8), torch.zeros(20, dtype=torch.long)
    report = quick_evaluation(fold(trained), trained, images, labels, progress=False)
    assert [(e.attack, e.norm) for e in report.evaluations[::3]] == [
        ("clean", None),
        ("fgsm", "Linf"),
        ("pgd", "Linf"),
        ("pgd", "L2"),
    ]
    assert report.max_condition_number == max(report.condition_numbers[name] for name in ("1", "3"))
    norms = [torch.linalg.matrix_norm(trained.backbone[i].weight.detach(), 2).item() for i in (1, 3)]
    assert report.lipschitz_bound == pytest.approx(math.prod(norms) / 0.25, rel=1e-5)


def test_the_curve_is_a_png(tmp_path):
    points = [Evaluation(attack="clean", norm=None, eps=0, accuracy=0.9, n=9)]
    points += [
        Evaluation(attack="pgd", norm="L2", eps=e, accuracy=0.5, n=9, options={"steps": s})
        for e in (0.1, 0.2)
        for s in (1, 2)
    ]
    for i, some in enumerate((points, points[:1])):
        draw_curve(some, tmp_path / f"{i}.png", "title")
        assert (tmp_path / f"{i}.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


# The command.


def evaluate_command(run: Run, *options: str) -> None:
    zoo(["evaluate", str(run.folder), "--n", "20", *options])


def test_the_command_adds_its_figures_to_the_card_and_draws_the_curve(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    evaluate_command(run, "--attacks", "fgsm", "--eps", "2/255,0.01")
    evaluate_command(run, "--attacks", "pgd", "--norms", "L2", "--device", "cpu", "--seed", "3")
    card = Run(run.folder).card
    assert [(e.attack, e.norm, e.eps) for e in card.evaluations] == [
        ("clean", None, 0.0),
        ("fgsm", "Linf", 2 / 255),
        ("fgsm", "Linf", 0.01),
        *(("pgd", "L2", eps) for eps in EPS["L2"]),
    ]
    assert card.evaluations[-1].options["seed"] == 3
    assert all(e.n == 20 and 0 <= e.accuracy <= 1 for e in card.evaluations)
    assert card.max_condition_number >= 1
    raw = json.loads((run.folder / CARD).read_text())["evaluations"][0]
    assert {"attack", "norm", "eps", "accuracy", "n"} <= raw.keys()
    assert (run.folder / "robustness.png").stat().st_size > 10_000
    screen = capsys.readouterr().out
    assert "fgsm" in screen
    assert "2/255" in screen
    assert "largest condition number" in screen
    assert "Lipschitz bound" in screen


def test_a_later_figure_does_not_clear_an_earlier_one_that_contradicts_it(tmp_path):
    run = make_run(tmp_path / "run")
    evaluate_command(run, "--attacks", "pgd", "--norms", "L2")
    assert "not_monotone" not in Run(run.folder).card.sanity.failures
    low = Evaluation(attack="fgsm", norm="Linf", eps=1 / 255, accuracy=0.0, n=20)
    Run(run.folder).save_card(run.card.with_evaluations([low, low.model_copy(update={"eps": 2 / 255, "accuracy": 1})]))
    evaluate_command(run, "--attacks", "pgd", "--norms", "L2")
    assert "not_monotone" in Run(run.folder).card.sanity.failures


def test_equal_seeds_give_equal_figures(tmp_path):
    run = make_run(tmp_path / "run")
    cards = []
    for _ in range(2):
        evaluate_command(run, "--attacks", "pgd", "--norms", "Linf")
        cards.append((run.folder / CARD).read_text())
    assert cards[0] == cards[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--attacks", "pdg"], "did you mean pgd"),
        (["--norms", "L3"], "norm 'L3'"),
        (["--eps", "8"], "8/255"),
        (["--eps", "x"], "eps 'x'"),
        (["--eps", ","], "--eps is empty"),
        (["--n", "0"], "at least 1"),
        (["--batch-size", "0"], "at least 1"),
        (["--device", "tpu"], "device"),
        (["--attack", "pgd"], "did you mean --attacks"),
        (["--data-dir", "photos"], "digits is built in and has no files"),
    ],
)
def test_mistakes_are_told_and_leave_the_card_alone(tmp_path, options, words):
    run = make_run(tmp_path / "run")
    before = (run.folder / CARD).read_bytes()
    with pytest.raises(UserError, match=words):
        evaluate_command(run, *options)
    assert (run.folder / CARD).read_bytes() == before
    assert not (run.folder / "robustness.png").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no CUDA device"):
        evaluate_command(make_run(tmp_path / "run"), "--device", "cuda")


def test_what_is_no_run_is_an_error(tmp_path):
    with pytest.raises(UserError, match="not a run"):
        zoo(["evaluate", str(tmp_path)])


def test_a_card_prints_without_evaluations(tmp_path, capsys):
    print_card(make_run(tmp_path / "run").card)
    assert "not measured" in capsys.readouterr().out
