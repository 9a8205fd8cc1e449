"""Queries of a black-box attack are answered by an ONNX graph; verdicts stay the model's."""

import pytest
import torch
from torch import Tensor, nn

from zoo.attacks.pgd import PGD
from zoo.attacks.square import Square
from zoo.evaluation import Sweep, evaluate
from zoo.export import queries
from zoo.export.queries import faster_queries

SHAPE = (1, 8, 8)
SQUARE = Square(queries=40)


@pytest.fixture
def network() -> nn.Module:
    layers = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 4)
    return nn.Sequential(*layers).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(40, *SHAPE)


def test_the_graph_answers_as_the_model_does_whatever_the_batch(network, images, monkeypatch):
    monkeypatch.setattr(queries, "WORTH", 0)
    monkeypatch.setattr(queries, "GAIN", float("inf"))
    answers = faster_queries(network, SHAPE, [Sweep(SQUARE, (0.1,))], len(images))
    assert answers is not None
    with torch.no_grad():
        torch.testing.assert_close(answers(images), network(images), rtol=1e-4, atol=1e-5)
    whole = answers(images)
    assert all(torch.equal(answers(images[:k]), whole[:k]) for k in (16, 17, 32))


def test_no_graph_is_written_for_few_queries_or_attacks_by_gradients(network, images, monkeypatch):
    monkeypatch.setattr(queries, "_graph", lambda *_: pytest.fail("a graph was written"))
    assert faster_queries(network, SHAPE, [Sweep(SQUARE, (0.1,))], len(images)) is None
    monkeypatch.setattr(queries, "WORTH", 1)
    assert faster_queries(network, SHAPE, [Sweep(PGD(), (0.1,))], len(images)) is None


def test_a_graph_that_is_slower_or_another_function_is_not_used(network, images, monkeypatch):
    monkeypatch.setattr(queries, "WORTH", 0)
    sweeps = [Sweep(SQUARE, (0.1,))]
    with monkeypatch.context() as patch:
        patch.setattr(queries, "GAIN", 0.0)
        assert faster_queries(network, SHAPE, sweeps, len(images)) is None
    monkeypatch.setattr(queries, "GAIN", float("inf"))
    monkeypatch.setattr(queries, "_graph", lambda *_: lambda x: network(x) + 1)
    assert faster_queries(network, SHAPE, sweeps, len(images)) is None


def test_square_asks_the_faster_function_and_ends_the_same(network, images):
    labels, asked = network(images).argmax(1), []

    def count(x: Tensor) -> Tensor:
        asked.append(len(x))
        return network(x).detach()

    ticks: list[int] = []
    plain = SQUARE(network, images, labels, [0.05])
    found = SQUARE(network, images, labels, [0.05], queries=count, tick=ticks.append)
    assert torch.equal(found.robust, plain.robust)
    assert torch.equal(found.adversarial, plain.adversarial)
    assert 40 <= len(asked) <= 2 * 41
    assert sum(ticks) >= 41 * int(plain.robust.sum())


def test_wrong_answers_never_break_an_image(network):
    pixels = torch.randint(0, 256, (40, *SHAPE), dtype=torch.uint8)
    labels = network(pixels / 255).argmax(1)

    def wrong(x: Tensor) -> Tensor:
        return -network(x).detach()

    clean, robust = evaluate(network, pixels, labels, [Sweep(SQUARE, (1e-6,))], queries=wrong, progress=False)
    assert clean.accuracy == robust.accuracy == 1
