"""Choose, for each factorized layer of a model, the form that is fastest on the target."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from zoo.export.forms import DENSE, Form, Geometry, candidates, geometry, trained_form, write_as
from zoo.export.target import Target
from zoo.lowrank.chain import FactorChain
from zoo.runs.file_metadata import Metadata

TIE = 0.02
"""Forms within this share of the fastest are equally fast: the one with the fewest weights is taken."""


@dataclass(frozen=True)
class Choice:
    """The form of one layer.

    Attributes:
        form: how it is written.
        trained: how it was trained.
        reason: why it is written so.
        costs: of each candidate form: milliseconds, or the cost model's estimate.
        is_estimated: whether they are estimates although the target is measured: there was no time left.
    """

    form: Form
    trained: Form
    reason: str
    costs: dict[str, float]
    is_estimated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as plain data."""
        rounded = {form: float(f"{cost:.4g}") for form, cost in self.costs.items()}
        form = {key: value for key, value in asdict(self.form).items() if value or key != "inner"}
        estimated = {"estimated": True} if self.is_estimated else {}
        return {**form, "trained_rank": self.trained.rank, "reason": self.reason, "costs": rounded, **estimated}


FORM_FIELDS = tuple(field.name for field in fields(Form))
Forms = dict[str, Form]
"""The form of each factorized layer, by its name in the model."""
Choices = dict[str, Choice]
"""The choice for each factorized layer, by its name in the model."""


def choose_forms(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    target: Target,
    say: Callable[[str], None] = lambda text: None,
) -> Choices:
    """Choose the form of each factorized layer of a model.

    Args:
        model: the deployed model in eval mode, on the CPU.
        image_shape: (C, H, W).
        target: gives the cost of forms.
        say: called with a line on each layer.
    """
    chains = {name: module for name, module in model.named_modules() if isinstance(module, FactorChain)}
    shapes = _input_shapes(model, chains, image_shape)
    choices: Choices = {}
    for i, (name, chain) in enumerate(chains.items(), 1):
        say(f"choosing the form of each layer: {i} of {len(chains)}")
        choices[name] = _choose(chain, shapes.get(name), target)
    return choices


def apply_forms(model: nn.Module, forms: Forms) -> nn.Module:
    """Return a copy of a model whose chains, by name, are written in the given forms."""
    model = copy.deepcopy(model)
    swap = {name: write_as(model.get_submodule(name), form) for name, form in forms.items()}  # type: ignore[arg-type]
    for name, layer in swap.items():
        old = model.get_submodule(name)
        for parent in list(model.modules()):  # a shared layer stays shared
            for key, child in list(parent._modules.items()):
                if child is old:
                    setattr(parent, key, layer)
    return model


def forms_in(metadata: Metadata) -> Forms:
    """Return the form of each factorized layer of an exported file, by its metadata."""
    kept = {name: {k: v for k, v in form.items() if k in FORM_FIELDS} for name, form in metadata.forms.items()}
    return {name: Form(**form) for name, form in kept.items()}


def dense_forms(choices: Choices) -> Forms:
    """Return the forms with every layer multiplied out if it may be."""
    return {name: DENSE if str(DENSE) in c.costs else c.form for name, c in choices.items()}


def padded_forms(choices: Choices, block: int) -> Forms:
    """Return the forms as trained, with ranks padded up to multiples of a block if that form is a candidate."""
    wider = {name: c.trained.padded(block) for name, c in choices.items()}
    return {name: wider[name] if str(wider[name]) in c.costs else c.trained for name, c in choices.items()}


def _choose(chain: FactorChain, shape: tuple[int, ...] | None, target: Target) -> Choice:
    trained = trained_form(chain)
    problem: Geometry | None = geometry(chain, shape) if shape is not None else None
    if problem is None:
        why = "the model reads its weight itself" if shape is None else "no other form is known"
        return Choice(trained, trained, f"as trained: {why}", {})
    forms = candidates(chain, problem, target.block)
    costs, are_times = target.costs(problem, forms)
    fastest = min(costs)
    equal = [form for form, cost in zip(forms, costs, strict=True) if cost <= (1 + TIE) * fastest]
    chosen = min(equal, key=problem.weights)
    reason = _reason(chosen, trained, forms, costs, are_times)
    by_form = dict(zip(map(str, forms), costs, strict=True))
    return Choice(chosen, trained, reason, by_form, is_estimated=target.is_measured and not are_times)


def _reason(chosen: Form, trained: Form, forms: list[Form], costs: list[float], are_times: bool) -> str:
    at = dict(zip(forms, costs, strict=True))

    def cost(form: Form) -> str:
        return f"{at[form]:.3f} ms" if are_times else f"cost {at[form]:.2f}"

    if chosen == DENSE:
        return f"{cost(DENSE)}, as trained {cost(trained)}"
    gain = f"{cost(chosen)}, dense {cost(DENSE)}"
    if chosen == trained:
        return gain
    return f"{gain}, unpadded rank {trained.rank} {cost(trained)}" if chosen.split == trained.split else gain


@torch.no_grad()
def _input_shapes(
    model: nn.Module, chains: dict[str, FactorChain], image_shape: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    """Return each chain's input shape for one image (the largest, if several); chains never called are missing."""
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(name: str) -> Any:
        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if name not in shapes or inputs[0].numel() > torch.Size(shapes[name]).numel():
                shapes[name] = tuple(inputs[0].shape)

        return before

    handles = [chain.register_forward_pre_hook(watch(name)) for name, chain in chains.items()]
    try:
        model(torch.zeros(1, *image_shape))
    finally:
        for handle in handles:
            handle.remove()
    return shapes
