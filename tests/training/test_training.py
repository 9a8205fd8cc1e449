"""Equal seeds give equal bits, and a killed run resumes to the weights of one that was not."""

import csv
import dataclasses
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import timm
import torch
import yaml
from saved_weights import same, weights
from torch import nn
from torch.utils.data import DataLoader

from zoo.backbone import with_normalization
from zoo.cli import run as zoo
from zoo.data import open_data
from zoo.errors import UserError
from zoo.lowrank.factorize import factorize
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.runs.config import TrainConfig
from zoo.runs.run import Run
from zoo.training.build import dense_backbone
from zoo.training.checks import single_values_refused
from zoo.training.module import Classifier
from zoo.training.options import ends_with_validation, lightning_options, validate_trainer_options
from zoo.training.precision import precision_of
from zoo.training.schedule import learning_rate_factor


def losses(folder: Path) -> list[tuple[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def test_equal_seeds_give_equal_bits(train_tiny) -> None:
    a, b, c = train_tiny(name="a"), train_tiny(name="b"), train_tiny(name="c", seed=1)
    assert same(a.folder, b.folder)
    assert a.card.ranks == b.card.ranks
    assert losses(a.folder) == losses(b.folder)
    assert not same(a.folder, c.folder)


@pytest.mark.parametrize("method", ["lowrank", "robust_lowrank"])
@pytest.mark.parametrize("kill_at", random.Random(0).sample(range(1, 40), 2))
def test_resuming_after_an_interruption_gives_the_same_weights(
    train_tiny, dying_at, tmp_path: Path, method: str, kill_at: int
) -> None:
    recipe = {"method": method, "epochs": 4, "arch": "test_efficientnet"}  # it has dropout and drop path
    whole = train_tiny(name="whole", **recipe)
    with dying_at(kill_at):
        train_tiny(name="killed", **recipe)
    with pytest.raises(UserError, match="--resume"):
        Run(tmp_path / "killed")
    zoo(["train", "--resume", str(tmp_path / "killed")])
    assert same(whole.folder, tmp_path / "killed")
    assert losses(whole.folder) == losses(tmp_path / "killed")


def test_the_card_of_a_resumed_run_names_the_command_that_began_it(
    train_tiny, dying_at, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = ["train", "--arch", "test_resnet", "--out", "with a\nbreak"]
    monkeypatch.setattr(sys, "argv", ["zoo", *begun])
    with dying_at(13):
        train_tiny(epochs=2)
    again = ["train", "--resume", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["zoo", *again])
    zoo(again)
    assert shlex.split(Run(tmp_path / "run").card.provenance.command) == ["zoo", *begun[:-1], "with a break"]


def test_compiling_makes_one_graph_for_the_search_and_one_for_the_step(
    train_tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = []

    def counting(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    recipe = {"adversary": "pgd", "steps": 2}
    for module in ("zoo.training.module", "zoo.adversaries._ascent"):  # a compiled graph computes factors each time
        monkeypatch.setattr(f"{module}.applied_once", lambda model: nullcontext())
    plain = train_tiny(name="plain", **recipe)
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counting))
    compiled = train_tiny(name="compiled", compile=True, **recipe)
    assert len(graphs) == 2
    assert same(plain.folder, compiled.folder)


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_the_precision_follows_what_the_gpu_does_in_hardware(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str
) -> None:
    """GPUs before Ampere emulate bf16, slower than fp32."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    network = nn.Conv2d(3, 3, 3)
    assert lightning_options(TrainConfig(), network, (3, 8, 8))["precision"] == precision
    assert lightning_options(TrainConfig(precision="16-mixed"), network, (3, 8, 8))["precision"] == "16-mixed"


def test_compiling_without_a_compiler_is_refused(train_tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="there is no no-such-compiler here"):
        train_tiny(compile=True)


def test_compiling_what_changes_every_few_steps_is_refused(train_tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="compiles anew"):
        train_tiny("rank_adaptive", compile=True)
    assert not (tmp_path / "run").exists()


def test_an_end_that_is_not_validated_is_refused(train_tiny, tmp_path: Path) -> None:
    """The best validated epoch is what adversarial training keeps."""
    sparse = {"epochs": 3, "trainer": {"check_val_every_n_epoch": 2}}
    with pytest.raises(UserError, match=r"check_val_every_n_epoch is 2: .* 3 epochs of \d+ batches, end with one"):
        train_tiny(adversary="fgsm_rs", **sparse)
    assert not (tmp_path / "run").exists()
    train_tiny(**sparse)  # keeps its last weights
    train_tiny(name="unvalidated", adversary="fgsm_rs", val_fraction=0.0, **sparse)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side", "wrong"),
    [(3, 2, 1, 1, True), (7, 4, 3, 3, True), (4, 4, 0, 4, True), (3, 2, 1, 2, False), (1, 2, 0, 1, False)],
)
def test_bf16_is_not_taken_where_a_cpu_gets_a_layer_wrong(
    monkeypatch: pytest.MonkeyPatch, kernel: int, stride: int, padding: int, side: int, wrong: bool
) -> None:
    """As oneDNN does: what it leaves uninitialised is whatever was there, so the gradients are not looked at here."""
    monkeypatch.setattr("zoo.training.precision._has_bf16_instructions", lambda: True)
    network, shape = nn.Sequential(nn.Conv2d(8, 8, kernel, stride, padding)), (8, side, side)
    assert precision_of("auto", network, shape, on_cuda=False) == ("32-true" if wrong else "bf16-mixed")
    assert precision_of("auto", factorize(network, {"0": 4}), shape, on_cuda=False) == (
        "32-true" if wrong else "bf16-mixed"
    )
    if wrong:
        with pytest.raises(UserError, match=r"layer 0 wrong.*--precision 32-true"):
            precision_of("bf16-mixed", network, shape, on_cuda=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_step_is_that_of_the_model(train_tiny) -> None:
    recipe = {"adversary": "pgd", "steps": 2, "n": 200, "epochs": 4, "trainer": {"log_every_n_steps": 1}}
    plain, compiled = train_tiny(name="plain", **recipe), train_tiny(name="compiled", compile=True, **recipe)
    # Later steps drift apart: the search takes signs of gradients, and roundings differ.
    for (_, first), (_, second) in list(zip(losses(plain.folder), losses(compiled.folder), strict=True))[:3]:
        assert float(first) == pytest.approx(float(second), rel=1e-3)
    assert plain.card.evaluations[0].accuracy == pytest.approx(compiled.card.evaluations[0].accuracy, abs=0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_resuming_after_sigkill_of_the_real_command(tmp_path: Path) -> None:
    def command(name: str) -> list[str]:
        return [sys.executable, "-m", "zoo", "train", "--arch", "test_resnet", "--epochs", "60", "--n", "60",
                "--out", str(tmp_path / name)]  # fmt: skip

    subprocess.run(command("whole"), check=True, capture_output=True)
    process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "killed/last.ckpt").exists():
        time.sleep(0.05)
    time.sleep(random.Random(0).uniform(0, 3))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/card.json").exists()
    subprocess.run(
        [sys.executable, "-m", "zoo", "train", "--resume", str(tmp_path / "killed")],
        check=True,
        capture_output=True,
    )
    assert same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_leave_one_finished_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zoo", "train", "--arch", "test_resnet", "--epochs", "1", "--n", "20",
               "--device", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp",
               "--out", str(tmp_path / "run")]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    steps = (1437 - 144) // 2 // 128
    assert Run(tmp_path / "run").card.training["steps"] == steps


def test_a_run_is_never_overwritten_without_being_asked(train_tiny) -> None:
    first = train_tiny()
    before = weights(first.folder)
    with pytest.raises(UserError, match="finished run"):
        train_tiny()
    assert all(torch.equal(v, before[k]) for k, v in weights(first.folder).items())
    assert train_tiny(overwrite=True, seed=3).card.provenance.seed == 3


def test_an_occupied_folder_is_told_apart_from_an_interrupted_run(train_tiny, dying_at, tmp_path: Path) -> None:
    with dying_at(3):
        train_tiny()
    with pytest.raises(UserError, match="interrupted run: continue it with --resume"):
        train_tiny()
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"^(?!.*--resume).*no run"):
        train_tiny(name="other")


def test_a_diverging_loss_stops_the_run_and_says_what_to_do(train_tiny, capfd) -> None:
    with pytest.raises(UserError, match=r"loss became .* lower --lr"):
        train_tiny("dense", lr=1e30, warmup=0.0, epochs=3)
    shown = capfd.readouterr()
    assert all(text == "" or text.endswith("\n") for text in shown), "the message would stand behind the progress"


@pytest.mark.parametrize(("method", "made_before"), [("dense", False), ("robust_lowrank", True)])
def test_a_run_that_diverges_before_its_first_checkpoint_leaves_nothing(
    train_tiny, tmp_path: Path, method: str, made_before: bool
) -> None:
    if made_before:
        (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"step \d+"):
        train_tiny(method, lr=1e30, warmup=0.0)
    assert not (tmp_path / "run").exists()
    train_tiny(method)  # at a lower rate, into the same folder


@pytest.mark.parametrize(
    "options",
    [
        {"limit_train_batches": None, "log_every_n_steps": None},
        {"check_val_every_n_epoch": None, "val_check_interval": 25},  # counted over epochs
        {"limit_train_batches": 0.5, "val_check_interval": 5},
        {"limit_val_batches": 0},
        {"overfit_batches": 1},
    ],
)
def test_what_lightning_takes_is_not_refused(options) -> None:
    validate_trainer_options({"accelerator": "cpu"} | options, batches=10, val_batches=2)
    pl.Trainer(accelerator="cpu", logger=False, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_steps": 20},
        {"max_steps": 25},
        {"max_steps": 99},
        {"max_steps": 25, "val_check_interval": 5},
        {"val_check_interval": 0.3},
        {"val_check_interval": 0.5},
        {"val_check_interval": 4},
        {"check_val_every_n_epoch": 2},
        {"check_val_every_n_epoch": 3},
        {"check_val_every_n_epoch": None, "val_check_interval": 6},
        {"check_val_every_n_epoch": None, "val_check_interval": 7},
        {"accumulate_grad_batches": 4, "max_steps": 6},
        {"accumulate_grad_batches": 4, "max_steps": 5},
        {"accumulate_grad_batches": 4, "max_steps": 5, "val_check_interval": 2},
    ],
)
def test_whether_a_training_ends_with_a_validation_is_known_before(options: dict) -> None:
    class Notes(pl.LightningModule):
        last = validated = -1

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            self.last = self.trainer.fit_loop.total_batch_idx
            return self.weight * batch.sum()

        def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            self.validated = self.last

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    options, module = {"max_epochs": 3} | options, Notes()
    batches = DataLoader(torch.zeros(10, 1))
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(accelerator="cpu", num_sanity_val_steps=0, **silent, **options).fit(module, batches, batches)
    assert ends_with_validation(options, batches=10) == (module.validated == module.last)


def test_an_interval_above_the_batches_left_is_refused() -> None:
    with pytest.raises(UserError, match="an epoch has 5 batches only"):
        validate_trainer_options(
            {"accelerator": "cpu", "limit_train_batches": 0.5, "val_check_interval": 6}, batches=10, val_batches=2
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit_train_batches": 0.05}, "limit_train_batches is 0.05: that leaves none of 10 batches"),
        ({"limit_train_batches": 0}, "limit_train_batches is 0: that leaves none of 10"),
        ({"overfit_batches": 0.05}, "limit_train_batches is 0.05: that leaves none of 10"),
        ({"limit_val_batches": 0.05}, "limit_val_batches is 0.05: that leaves none of 2"),
    ],
)
def test_limits_that_leave_nothing_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate_trainer_options({"accelerator": "cpu"} | options, batches=10, val_batches=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_fraction": 0.0007}, r"2 processes cannot share 1 validation image: .*raise --val-fraction, or set it"),
        ({"trainer": {"devices": 2, "num_nodes": 800}}, "1600 processes cannot share 1293 training images: lower"),
    ],
)
def test_a_process_without_an_image_is_told_before_the_start(
    changes: dict, message: str, train_tiny, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train_tiny("dense", **({"trainer": {"devices": 2, "strategy": "ddp"}} | changes))
    assert not (tmp_path / "run").exists()


def test_processes_share_the_batches_of_an_epoch(train_tiny) -> None:
    with pytest.raises(UserError, match="val_check_interval is 6, but an epoch has 5 batches only"):
        train_tiny("dense", trainer={"devices": 2, "strategy": "ddp", "val_check_interval": 6})


def test_a_logger_that_cannot_log_in_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    # In a process of its own: wandb reads its settings once.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    command = ["train", "--arch", "test_resnet", "--logger", "wandb", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "zoo", *command],
        env=kept | {"NETRC": str(tmp_path / "none")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert re.search("^zoo: --logger wandb: .*WANDB_MODE=offline", done.stderr, flags=re.MULTILINE)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_training_ends_when_its_time_is_over(train_tiny) -> None:
    run = train_tiny("lowrank", epochs=50, trainer={"max_time": {"milliseconds": 1}})
    assert run.card.training["steps"] == 1


def test_a_finished_run_has_nothing_to_resume(train_tiny) -> None:
    with pytest.raises(UserError, match="finished"):
        zoo(["train", "--resume", str(train_tiny().folder)])


@pytest.mark.parametrize(
    ("line", "changed", "said"),
    [
        ("  rank_budget: adaptive", "  rank_budget: fixed", r"method\.rank_budget fixed, .* trained with adaptive"),
        ("  name: robust_lowrank", "  name: mrs_prune", r"config\.yaml, as it is now: unknown option of mrs_prune"),
        ("compression: 0.6", "compression: 0.5", r"compression 0\.5, .* trained with 0\.6"),
        ("arch: test_resnet", "arch: test_vit", "arch test_vit, .* trained with test_resnet"),
        ("download: false", "download: true", None),
    ],
)
def test_what_was_changed_before_resuming_is_named_and_nothing_is_lost(
    train_tiny, dying_at, tmp_path: Path, line: str, changed: str, said: str | None
) -> None:
    with dying_at(13):
        train_tiny(RobustLowrank(rank_budget="adaptive"), compression=0.6, epochs=2)
    config, checkpoint = tmp_path / "run/config.yaml", tmp_path / "run/last.ckpt"
    before, text = checkpoint.read_bytes(), config.read_text()
    assert f"{line}\n" in text
    config.write_text(text.replace(f"{line}\n", f"{changed}\n"))
    if said is None:
        zoo(["train", "--resume", str(tmp_path / "run")])
        return
    with pytest.raises(UserError, match=said):
        zoo(["train", "--resume", str(tmp_path / "run")])
    assert checkpoint.read_bytes() == before
    config.write_text(text)
    zoo(["train", "--resume", str(tmp_path / "run")])


def test_a_damaged_checkpoint_is_named(train_tiny) -> None:
    folder = train_tiny(epochs=1).folder
    (folder / "card.json").unlink()
    (folder / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"last\.ckpt cannot be read"):
        zoo(["train", "--resume", str(folder)])


def test_a_damaged_best_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"best\.ckpt cannot be read \(\w+\): delete it to end with the last epoch"):
        Classifier.load_checkpoint(nn.Module(), tmp_path / "best.ckpt")


def test_a_wrong_name_leaves_no_folder_behind(train_tiny, tmp_path: Path) -> None:
    for wrong in ({"arch": "resnet1818"}, {"data": "digit"}, {"compression": 0.999}, {"device": "cuda"}):
        if wrong.get("device") == "cuda" and torch.cuda.is_available():
            continue
        with pytest.raises(UserError):
            train_tiny(**wrong)
        assert not (tmp_path / "run").exists()


def test_starting_from_a_dense_run(train_tiny) -> None:
    dense = train_tiny("dense", "dense")
    config = TrainConfig(arch="test_resnet", weights=dense.folder)
    started = dense_backbone(config, open_data("digits"))
    expected = dense.trained_model().get_submodule("backbone").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in started.state_dict().items())


@pytest.mark.parametrize("convolution", ["matrix", "tucker"])
def test_starting_from_a_compressed_run_multiplies_its_factors_out(train_tiny, convolution: str) -> None:
    low = train_tiny(RobustLowrank(convolution=convolution), "low", compression=0.5)
    started = with_normalization(
        dense_backbone(TrainConfig(arch="test_resnet", weights=low.folder), open_data("digits")),
        low.card.mean,
        low.card.std,
    ).eval()
    images = torch.rand(4, *low.card.image_shape)
    assert torch.allclose(started(images), low.trained_model()(images), atol=1e-4)
    lower = train_tiny("robust_lowrank", "lower", weights=low.folder, compression=0.8)
    assert lower.card.params < low.card.params


def test_starting_from_a_run_that_does_not_fit_is_told(train_tiny, tmp_path: Path) -> None:
    pruned = train_tiny("mrs_prune", "pruned", compression=0.5)
    with pytest.raises(UserError, match="all its channels"):
        train_tiny("lowrank", "again", weights=pruned.folder)
    with pytest.raises(UserError, match="all its channels"):
        train_tiny("lowrank", "again", weights=Path("resnet18.robust_lowrank80_c10"))
    with pytest.raises(UserError, match="unknown model"):
        train_tiny("lowrank", "again", weights=Path("resnet18.robust_lowrank"))
    with pytest.raises(UserError, match="no weights at"):
        train_tiny("lowrank", "again", weights=tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="no run at"):
        train_tiny("lowrank", "again", weights=tmp_path / "none")


def test_starting_from_a_checkpoint_of_another_tool(
    train_tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    original = timm.create_model("test_resnet", num_classes=7)
    torch.save({"state_dict": {f"module.{k}": v for k, v in original.state_dict().items()}}, tmp_path / "x.pth")
    run = train_tiny("dense", "own", weights=tmp_path / "x.pth", stem="original")
    printed = capsys.readouterr().err
    assert "conv1.0.weight adapted to 1 channels, a new head for 10 classes, the checkpoint has 7" in printed
    assert (run.card.stem, Run(run.folder).card.stem) == ("original", "original")
    started = dense_backbone(
        TrainConfig(arch="test_resnet", weights=tmp_path / "x.pth", stem="original"), open_data("digits")
    )
    deep = "layer1.0.conv2.weight"
    assert torch.equal(started.state_dict()[deep], original.state_dict()[deep])
    again = train_tiny("dense", "again", init=str(run.folder), stem="original")
    assert again.card.stem == "original"
    with pytest.raises(UserError, match="has the stem original: leave --stem auto out"):
        train_tiny("dense", "third", init=str(run.folder))


def test_files_for_a_data_set_that_has_none_are_refused(train_tiny, tmp_path: Path) -> None:
    """``--data`` left out means digits: a long training on those instead of on the files is not what was meant."""
    with pytest.raises(UserError, match=r"digits is built in .* --data cifar10"):
        train_tiny(data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_are_saved_as_plain_ones_and_go_on(train_tiny, dying_at, tmp_path: Path) -> None:
    numbers = {
        "lr": np.float32(0.25),
        "epochs": np.int64(2),
        "balance": np.bool_(False),
        "compression": np.float64(0.5),
    }
    trainer = {"gradient_clip_val": np.float64(1.0)}
    with dying_at(12):
        train_tiny(RobustLowrank(tau=np.float64(0.2)), **numbers, trainer=trainer)
    saved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert {name: saved[name] for name in numbers} == {name: value.item() for name, value in numbers.items()}
    assert (saved["method"]["tau"], saved["trainer"]) == (0.2, {"gradient_clip_val": 1.0})
    zoo(["train", "--resume", str(tmp_path / "run")])
    assert Run(tmp_path / "run").card.method_options["tau"] == 0.2


def test_the_configuration_is_saved_whole(train_tiny) -> None:
    saved = yaml.safe_load((train_tiny(trainer={"gradient_clip_val": 1.0}).folder / "config.yaml").read_text())
    assert saved["method"] == {"name": "robust_lowrank", **dataclasses.asdict(RobustLowrank())}
    assert saved["trainer"] == {"gradient_clip_val": 1.0}


def test_a_training_without_a_progress_bar(train_tiny, capfd) -> None:
    train_tiny(trainer={"enable_progress_bar": False})
    assert "epoch 1/" not in "".join(capfd.readouterr())
    train_tiny(name="shown")
    assert "epoch 1/" in "".join(capfd.readouterr())


def test_weights_and_biases_offline_and_tensorboard(train_tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert list((train_tiny(name="w", logger="wandb").folder / "wandb").glob("offline-run-*"))
    assert list((train_tiny(name="t", logger="tensorboard").folder / "tensorboard").glob("events.*"))


@pytest.mark.parametrize(("schedule", "end"), [("cosine", 0.0), ("multistep", 0.09), ("constant", 1.0)])
def test_schedules_rise_and_end_where_they_should(schedule: str, end: float) -> None:
    factor = learning_rate_factor(schedule, 120, 0.1)
    assert [factor(s) for s in (0, 11)] == [pytest.approx(1 / 12), 1.0]
    assert factor(12) == pytest.approx(1.0)
    assert factor(120) == pytest.approx(end)


def test_a_batch_that_batchnorm_cannot_normalise_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match="larger --batch-size"), single_values_refused():
        nn.BatchNorm2d(3)(torch.rand(1, 3, 1, 1))
    with pytest.raises(ValueError, match="other"), single_values_refused():
        raise ValueError("other")
