"""A model that answers with something other than logits is told so in one line."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.attacks import AttackedModel
from zoo.attacks.pgd import PGD
from zoo.attacks.square import Square
from zoo.errors import UserError


class Answering(nn.Module):
    """A linear classifier of three classes whose logits go through a function."""

    def __init__(self, answer: Callable[[Tensor], Any] = lambda logits: logits, dtype: torch.dtype = torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.answer = nn.Linear(3 * 16, 3).to(dtype), answer
        self.eval()

    def forward(self, images: Tensor) -> Any:
        return self.answer(self.layer(images.flatten(1)))


ANSWERS = {
    "tuple": (lambda x: (x, x), "the model returns a tuple where a tensor of logits is needed: give a function"),
    "dict": (lambda x: {"logits": x}, "the model returns a dict where"),
    "squeezed": (lambda x: x[:, 0], r"the model returns torch.float32 \(\d+,\) for images .*: logits \(B, classes\)"),
    "one for all": (lambda x: x.mean(0, keepdim=True), r"the model returns torch.float32 \(1, 3\) for images"),
    "classes": (lambda x: x.argmax(1, keepdim=True), r"the model returns torch.int64 \(\d+, 1\) for images"),
    "detached": (lambda x: x.detach(), "logits have no gradient in its images: take detach"),
    "a constant": (lambda x: nn.Parameter(x.detach().clone()) * 1, "logits have no gradient in its images"),
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("n", [1, 20])
def test_an_answer_that_cannot_be_attacked_is_told(kind: str, n: int) -> None:
    answer, message = ANSWERS[kind]
    images, labels = torch.rand(n, 3, 4, 4), torch.zeros(n, dtype=torch.long)
    labels = Answering()(images).argmax(1)  # an image that is misclassified would not be attacked
    for attack in (
        lambda model: PGD(steps=2)(model, images, labels, [0.1]),
        lambda m: zoo.attack(m, images, labels, 0.1),
    ):
        with pytest.raises(UserError, match=message) as caught:
            attack(Answering(answer))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_another_precision_are_told(dtype: torch.dtype) -> None:
    images, labels = torch.rand(4, 3, 4, 4), torch.zeros(4, dtype=torch.long)
    with pytest.raises(UserError, match=rf"^the model's weights are {dtype} and its images float32: give model\.float"):
        PGD(steps=2)(Answering(dtype=dtype), images, labels, [0.1])
    with pytest.raises(UserError, match=r"^the model cannot take images .*: [^\n]*dtype"):
        zoo.attack(Answering(dtype=dtype), images, labels, 0.1)


def test_a_model_that_turns_fp32_images_into_its_own_precision_is_attacked() -> None:
    model = Answering(dtype=torch.float64)
    model.register_forward_pre_hook(lambda module, images: images[0].double())
    images = torch.rand(4, 3, 4, 4)
    assert AttackedModel(model).logits(images).dtype == torch.float32
    assert PGD(steps=2)(model, images, model(images).argmax(1), [1e-4]).robust.shape == (1, 4)


def test_a_model_without_gradients_can_be_attacked_by_queries() -> None:
    model, images = Answering(lambda logits: logits.detach()), torch.rand(4, 3, 4, 4)
    assert Square(queries=20)(model, images, model(images).argmax(1), [1e-6]).robust.all()
