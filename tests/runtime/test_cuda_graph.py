"""Captured steps and constraints: on a CPU by calling functions again (tests/test_cuda.py captures on a GPU)."""

from functools import partial

import pytest
import torch
from constrained_module import UsersModule, Watch, fit
from replay_stand_ins import called_again, computed_again
from torch import nn

from zoo.callbacks import OrthonormalRetraction, SpectrumClamp
from zoo.errors import UserError
from zoo.lowrank.layers import FactorizedLinear
from zoo.runtime.cuda_graph import Replays
from zoo.training.awp import WeightPerturbation
from zoo.training.captured_step import CapturedStep


class Trainee:
    """A small network with random numbers, normalisation and a scale outside it, trained step by step."""

    def __init__(self, *, captured: bool) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), FactorizedLinear(nn.Linear(8, 6), 3)
        )
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.unused = self.model.register_parameter("unused", nn.Parameter(torch.ones(2)))
        self.awp = WeightPerturbation(self.model, 0.01)
        self.optimizer = torch.optim.SGD([*self.model.parameters(), self.scale], lr=0.1, momentum=0.9)
        self.captures = 0
        self.step = CapturedStep(self.model, self.loss, self.awp.undo, self.capture) if captured else None

    def capture(self, run):
        self.captures += 1
        return called_again(run)

    def loss(self, images, labels):
        noisy = images + 0.1 * torch.randn_like(images)

        def once():
            logits = self.scale * self.model(noisy)
            return {"loss": nn.functional.cross_entropy(logits.float(), labels), "logits": logits.detach()}

        self.awp.perturb(lambda: once()["loss"])
        return once()

    def train(self, steps, batch=16, accumulate=1, bf16=False):
        losses = []
        for i in range(steps):
            for j in range(accumulate):
                torch.manual_seed(100 * i + j)
                images, labels = torch.rand(batch, 3, 2, 2), torch.randint(0, 6, (batch,))
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    result = (self.step or self.loss)(images, labels)
                (result["loss"] / accumulate).backward()
                self.awp.undo()
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append(result["loss"].detach())
        return torch.stack(losses)

    def state(self):
        return torch.cat([x.detach().flatten().float() for x in (*self.model.state_dict().values(), self.scale)])


@pytest.mark.parametrize("bf16", [False, True])
def test_replays_train_as_the_step_itself_does(bf16: bool) -> None:
    """Same losses, weights, momenta and running statistics, bit for bit; one capture."""
    plain, captured = Trainee(captured=False), Trainee(captured=True)
    torch.testing.assert_close(captured.train(6, bf16=bf16), plain.train(6, bf16=bf16), atol=0, rtol=0)
    torch.testing.assert_close(captured.state(), plain.state(), atol=0, rtol=0)
    assert captured.captures == 1
    assert captured.model.unused.grad is None


def test_gradients_of_several_batches_add_up() -> None:
    plain, captured = Trainee(captured=False), Trainee(captured=True)
    torch.testing.assert_close(captured.train(3, accumulate=2), plain.train(3, accumulate=2))
    torch.testing.assert_close(captured.state(), plain.state())


def test_captured_anew_where_shapes_or_tensors_change() -> None:
    plain, captured = Trainee(captured=False), Trainee(captured=True)
    for trainee in (plain, captured):
        trainee.train(2)
        trainee.train(2, batch=8)
        layer = trainee.model[4]
        layer.U.data, layer.V.data, layer.S.data = layer.U.data[:, :2], layer.V.data[:, :2], layer.S.data[:2, :2]
        trainee.optimizer = torch.optim.SGD(trainee.model.parameters(), lr=0.1)
        trainee.train(2, batch=8)
        trainee.model[1].weight.requires_grad_(False)
        trainee.train(2, batch=8)
    assert captured.captures == 4
    torch.testing.assert_close(captured.state(), plain.state(), atol=0, rtol=0)
    captured.step.forget()
    captured.train(1, batch=8)
    assert captured.captures == 5


@pytest.mark.parametrize(
    ("options", "flows"),
    [
        ({"lr": 0.1, "momentum": 0.9}, 2),  # before there are momenta, and with them
        ({"lr": 0.1, "momentum": 0.9, "nesterov": True}, 1),
        ({"optimizer": "adam", "lr": 0.01}, 1),
        ({"lr": 3.0}, 2),  # steps too long for one pass of Cholesky-QR
    ],
)
def test_replayed_constraints_are_the_constraints(options, flows, monkeypatch) -> None:
    """Same weights, bit for bit, and each function captured once for all its steps."""
    monkeypatch.setattr("zoo.callbacks._step_hook.Replays", partial(Replays, computed_again))
    weights = []
    for captured in (None, True):
        torch.manual_seed(0)
        module, watch = UsersModule(**options), Watch()
        module.captured = captured
        constraints = [OrthonormalRetraction(), SpectrumClamp(0.1)]
        trainer = fit(module, [*constraints, watch], steps=6)
        assert max(watch.orthonormality) <= 1e-5
        assert max(watch.condition) <= 1.1
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert trainer.global_step == 6
    torch.testing.assert_close(weights[1], weights[0], atol=0, rtol=0)
    ranks = 3  # on a CPU layers of one rank are a batch: one retraction and the two parts of one clamp each
    assert [len(callback.constraint.run._entries) for callback in constraints] == [flows + ranks, 2 * ranks]


def test_what_a_replay_is_given_stays_as_it_is() -> None:
    """A function may write to its copies; other shapes and constants are captured anew."""

    def doubled(xs: list[torch.Tensor], factor: float) -> list[torch.Tensor]:
        return [x.mul_(factor) for x in xs]

    replays = Replays(computed_again)
    for sizes, factor in (((2, 3), 2.0), ((2, 3), 2.0), ((2, 4), 2.0), ((2, 3), 5.0), ((2, 3), 2.0)):
        xs = [torch.rand(size) for size in sizes]
        before = [x.clone() for x in xs]
        found = replays(doubled, xs, factor)
        torch.testing.assert_close(xs, before, atol=0, rtol=0)
        torch.testing.assert_close(found, [factor * x for x in xs])
    assert len(replays._entries) == 3


def test_a_function_that_cannot_be_captured_is_called() -> None:
    def refused(run):
        raise UserError("operation not permitted when stream is capturing")

    xs = [torch.ones(2)]
    replays = Replays(refused)
    for expected in (2.0, 4.0):
        assert replays(lambda xs: [x.mul_(2) for x in xs], xs)[0].tolist() == [expected, expected]


def test_captured_steps_need_a_gpu(train_tiny) -> None:
    with pytest.raises(UserError, match=r"^--cuda-graph true captures the steps of one CUDA device"):
        train_tiny(cuda_graph=True)
