"""Scores on channels: masks are what the cut will be, scores learn while weights stay, a killed search goes on."""

import signal
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from rank_training import Plain, fit
from safetensors.torch import load_file
from small_networks import IMAGE, network, shaken

from zoo.callbacks import MaskSearch
from zoo.channels import prune_, trace_channels
from zoo.channels.masks import ChannelMasks
from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.methods.csam import Csam
from zoo.methods.hydra import Hydra
from zoo.runtime.complexity import count_params


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "densenet"])
def test_a_masked_network_answers_as_the_cut_one(name: str) -> None:
    model = shaken(network(name)).double()
    graph = trace_channels(model, IMAGE)
    sizes = {g: n // 2 for g, n in graph.sizes.items()}
    scores = {g: torch.rand(n, dtype=torch.float64) for g, n in graph.sizes.items()}
    x = torch.rand(4, *IMAGE, dtype=torch.float64)
    with torch.no_grad():
        plain = model(x)
        masks = ChannelMasks(model, graph, scores, sizes)
        assert ChannelMasks.of(model) is masks
        masked = model(x)
        masks.remove()
        assert ChannelMasks.of(model) is None
        assert torch.equal(model(x), plain)
        prune_(model, graph, {g: scores[g].topk(n).indices for g, n in sizes.items()})
        torch.testing.assert_close(model(x), masked, rtol=1e-8, atol=1e-8)
    assert not torch.allclose(masked, plain)


def test_the_gradient_of_a_score_is_that_of_its_mask() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    graph = trace_channels(model, (1, 1, 3))
    masks = ChannelMasks(model, graph, {"0": torch.tensor([0.4, 0.1, 0.3, 0.2])}, {"0": 2})
    x = torch.rand(5, 3)
    found = masks.gradients(model(x).sum())["0"]
    expected = (model[0](x) * model[1].weight.sum(0)).sum(0)
    torch.testing.assert_close(found, expected.detach())
    assert torch.equal(masks.mask("0").detach(), torch.tensor([1.0, 0.0, 1.0, 0.0]))


def test_scores_learn_while_weights_stay_then_the_cut_is_real() -> None:
    module, seen = Plain(), {}

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
            scores = {g: p.detach().clone() for g, p in search.masks.scores.items()} if search.masks else {}
            seen[trainer.global_step] = (scores, {n: p.detach().clone() for n, p in pl_module.named_parameters()})

    search = MaskSearch(0.6, begin=0.5, warmup=0.25, lr=0.05)
    dense = count_params(module)
    fit(module, [search, Watch()])
    step = search.history[0]["step"]
    first = step // 2
    assert not seen[first][0]
    assert all(torch.equal(p, seen[step][1][n]) for n, p in seen[first][1].items())
    assert all(not torch.equal(x, seen[step][0][g]) for g, x in seen[first + 1][0].items())
    assert not seen[step + 1][0]
    assert ChannelMasks.of(module) is None
    assert 0.6 <= 1 - count_params(module) / dense <= 0.62
    last = seen[max(seen)][1]
    assert all(not torch.equal(p, last[n]) for n, p in seen[step + 1][1].items())


def test_a_step_that_overflows_leaves_the_scores_as_they_are() -> None:
    class Overflowing(Plain):
        def training_step(self, batch, batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            return loss * float("inf") if self.trainer.global_step == 9 else loss

    module, seen = Overflowing(), []

    class Watch(pl.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            seen.append({g: p.detach().clone() for g, p in search.masks.scores.items()} if search.masks else {})

    search = MaskSearch(0.6, begin=0.5, warmup=0.25, lr=0.05)
    fit(module, [search, Watch()])
    assert all(torch.equal(value, seen[8][group]) for group, value in seen[9].items())
    assert all(value.isfinite().all() and not torch.equal(value, seen[9][group]) for group, value in seen[10].items())
    assert all(p.isfinite().all() for p in module.parameters())


def test_scores_find_the_channels_that_the_labels_need() -> None:
    """Only two hidden channels carry the answer, and their weights are the smallest."""
    torch.manual_seed(0)

    class Needed(Plain):
        image_shape = (1, 1, 8)

        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 2, bias=False))
            with torch.no_grad():
                self.net[0].weight.copy_(torch.eye(8))
                self.net[0].weight[:2] *= 0.5
                self.net[1].weight.normal_(std=0.01)
                self.net[1].weight[0, 0] = self.net[1].weight[1, 1] = 20.0

        def training_step(self, batch, batch_idx: int) -> torch.Tensor:
            x = torch.rand(64, 8)
            return torch.nn.functional.cross_entropy(self.net(x), x[:, :2].argmax(1))

    module = Needed()
    search = MaskSearch(0.7, begin=0.9, lr=0.1)
    fit(module, [search])
    assert len(module.net[0].weight) == 2
    torch.testing.assert_close(module.net[0].weight.detach().abs().argmax(1), torch.tensor([0, 1]))


@pytest.mark.parametrize("method", [Hydra(), pytest.param(Csam(), marks=pytest.mark.slow)])
def test_a_search_that_was_killed_goes_on_to_the_same_weights(train_tiny, dying_at, tmp_path: Path, method) -> None:
    """An epoch has 10 steps: scores are trained from step 9 to 15, and the checkpoint is from step 10."""
    recipe = {"method": method, "epochs": 3, "compression": 0.6}
    whole = train_tiny(name="whole", **recipe)
    with dying_at(13):
        train_tiny(name="killed", **recipe)
    zoo(["train", "--resume", str(tmp_path / "killed")])
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert 0.6 <= 1 - whole.card.params / whole.card.dense_params <= 0.62


class Dying(Plain):
    """Whose training dies at the first step of the second epoch, if it must."""

    death: type[BaseException] | None = None

    def training_step(self, batch, batch_idx: int) -> torch.Tensor:
        if self.death is not None and self.trainer.global_step == 16:
            raise self.death
        return super().training_step(batch, batch_idx)


class SavesWhatDies(pl.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(self, trainer: pl.Trainer, *_: object) -> None:
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(("death", "seen"), [(ConnectionError, ConnectionError), (KeyboardInterrupt, SystemExit)])
def test_a_search_that_an_exception_ends_leaves_no_hook_and_goes_on_to_the_same_weights(
    death: type[BaseException], seen: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are trained from step 8 to 24."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # Lightning turns Ctrl-C off after the first
    options = {"begin": 0.75, "warmup": 0.25, "lr": 0.05}
    dying, whole, resumed = Dying(), Dying(), Dying()
    whole.load_state_dict(dying.state_dict())
    fit(whole, [MaskSearch(0.6, **options)])

    dying.death, search, path = death, MaskSearch(0.6, **options), tmp_path / "died.ckpt"
    with pytest.raises(seen):
        fit(dying, [search, SavesWhatDies(path)])
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in dying.modules())
    assert search.state_dict()["search"]["scores"]

    fit(resumed, [MaskSearch(0.6, **options)], ckpt_path=path)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_training_that_is_stopped_before_the_cut_leaves_no_hook_and_its_scores() -> None:
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            trainer.should_stop = trainer.global_step == 12

    module, search = Plain(), MaskSearch(0.6, begin=0.75, lr=0.05)
    fit(module, [search, Stop()])
    assert ChannelMasks.of(module) is None
    assert search.state_dict()["search"]["scores"]


@pytest.mark.parametrize("options", [{"warmup": 0.6}, {"score_lr": 0.0}, {"begin": 1.0}])
@pytest.mark.parametrize("method", [Hydra, Csam])
def test_impossible_hyper_parameters_are_refused(method: type, options: dict) -> None:
    with pytest.raises(UserError):
        method(**options)


def test_csam_takes_its_loss_where_the_masks_are_worst() -> None:
    """The loss at the perturbed scores is at least that without perturbation, and the perturbation leaves no trace."""
    model = shaken(network("test_resnet")).train()
    graph = trace_channels(model)
    scores = {g: torch.rand(n) for g, n in graph.sizes.items()}
    masks = ChannelMasks(model, graph, scores, {g: n // 2 for g, n in graph.sizes.items()})
    x, y = torch.rand(32, *IMAGE), torch.arange(32) % 10
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    plain = Csam(rho=0.0, noise=0.0).loss(model, x, y)["loss"]
    model.load_state_dict(buffers, strict=False)
    worst = Csam(rho=0.05, noise=0.0).loss(model, x, y)["loss"]
    assert worst > plain
    assert masks.shift == {}
    worst.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in masks.scores.values())
