"""A captured step: on a CPU with a capture that calls the function again (tests/test_cuda.py captures on a GPU)."""

import pytest
import torch
from torch import nn

from zoo.errors import UserError
from zoo.layers import FactorizedLinear
from zoo.training.awp import WeightPerturbation
from zoo.training.cuda_graph import CapturedStep


def called_again(run):
    """Stand in for a CUDA graph: a replay writes the tensors that the capture returned."""
    for _ in range(2):
        run()
    results, leaves, gradients = run()

    def replay() -> None:
        again, _, found = run()
        for held, value in zip([*results.values(), *gradients], [*again.values(), *found], strict=True):
            held.copy_(value)

    return (results, leaves, gradients), replay


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
        self.step = CapturedStep(self.model, self.loss, self.awp.restore, self.capture) if captured else None

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
                self.awp.restore()
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


def test_captured_steps_need_a_gpu(train_tiny) -> None:
    with pytest.raises(UserError, match=r"^--cuda-graph true captures the steps of one CUDA device"):
        train_tiny(cuda_graph=True)
