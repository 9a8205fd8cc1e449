"""An upper bound on a network's Lipschitz constant: the product bound, taken along its graph.

For a chain of layers the bound is the product of their Lipschitz constants (Szegedy et al., Intriguing
properties of neural networks, ICLR 2014, section 4.3); where branches meet, their bounds are added. It
holds for every pair of images, and is usually orders of magnitude above the network's true constant:
read it as a comparison of networks of one architecture.
"""

import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from zoo.evaluation.lipschitz.activation import Activation
from zoo.evaluation.lipschitz.rules import RULES


@dataclass(frozen=True)
class LipschitzBound:
    """A bound L with ||f(x) - f(y)||_2 <= L ||x - y||_2, or why there is none.

    Attributes:
        value: L, of logits with respect to an image in [0, 1]; None if an operation has no known bound.
        obstacle: the operations without one, or ``""``.
    """

    value: float | None
    obstacle: str = ""


@torch.no_grad()
def lipschitz_bound(model: nn.Module, image_shape: tuple[int, int, int]) -> LipschitzBound:
    """Bound the Lipschitz constant of the map from one image to its logits, both in the 2-norm.

    Every linear and convolution layer counts with the spectral norm of its weight matrix, merged with the
    batch normalisation or the pointwise convolution after it; an operation counts with its constant of
    `zoo.evaluation.lipschitz.rules`. Normalisation inside the model counts, with 1 / min(std).

    Args:
        model: in eval mode; give the deployed form, whose layers are plain.
        image_shape: (C, H, W).
    """
    try:
        program = _graph(model, image_shape)
    except Exception as error:  # torch.export raises many kinds, and all mean the same here
        return LipschitzBound(None, f"torch.export cannot trace the model: {str(error).partition(chr(10))[0]}")
    unknown: dict[str, None] = {}
    result = _walk(program, unknown)
    if unknown:
        return LipschitzBound(None, ", ".join(unknown))
    if not isinstance(result, Activation):
        return LipschitzBound(None, "the model does not return one tensor that depends on the image")
    return LipschitzBound(result.bound) if math.isfinite(result.bound) else LipschitzBound(None, "overflow")


def _graph(model: nn.Module, image_shape: tuple[int, int, int]) -> ExportedProgram:
    """Return the model's graph without in-place operations, its layers kept whole."""
    like = next(model.parameters(), torch.empty(0))
    example = torch.zeros(1, *image_shape, dtype=like.dtype, device=like.device)
    program = torch.export.export(model, (example,))
    # Functional already: spared, because it takes as long as the export.
    plain = all(_known(node) for node in program.graph.nodes if node.op == "call_function")
    return program if plain else program.run_decompositions({})


def _lifted(program: ExportedProgram) -> dict[str, Any]:
    """Return the parameters, buffers and constants by the name of their placeholder."""
    signature = program.graph_signature
    where = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    return {
        name: program.state_dict[path] if path in program.state_dict else program.constants[path]
        for name, path in where.items()
    }


def _walk(program: ExportedProgram, unknown: dict[str, None]) -> Any:
    """Return the graph's output: an `Activation` if it depends on the image.

    What does not depend on it is computed, so that a weight may be a function of parameters. Operations
    without a bound are collected in ``unknown``; the walk goes on to find them all.
    """
    values: dict[Node, Any] = {}
    lifted = _lifted(program)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            values[node] = lifted[node.name] if node.name in lifted else Activation(_shape(node), 1.0)
        elif node.op == "output":
            return map_arg(node.args[0], lambda n: values[n])[0]
        else:
            args, kwargs = map_arg((node.args, node.kwargs), lambda n: values[n])
            inputs = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Activation)]
            if not inputs:
                values[node] = node.target(*args, **kwargs)
                continue
            result = _apply(node, args, kwargs)
            if result is None and node.users:
                unknown[_name(node)] = None
            values[node] = result if result is not None else Activation(_shape(node), 1.0)
    return None


def _apply(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Activation | None:
    if node.target is operator.getitem:
        return Activation(_shape(node), args[0].scale, args[0].rows, args[0].axis)
    rule = RULES.get(_name(node))
    if rule is None:
        return None
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
    given = {a.name: value for a, value in zip(schema, args, strict=False)}
    return rule(_shape(node), **{**defaults, **given, **kwargs})


def _known(node: Node) -> bool:
    """Whether the rules cover an operation and it changes nothing in place."""
    return _name(node) in RULES and not node.target._schema.is_mutable  # type: ignore[union-attr]


def _name(node: Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0]


def _shape(node: Node) -> tuple[int, ...]:
    value = node.meta["val"]
    return tuple((value if isinstance(value, torch.Tensor) else value[0]).shape)
