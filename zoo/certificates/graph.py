"""A network's graph of operations, evaluated with another value than a tensor in place of the image."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from zoo.errors import first_line

Apply = Callable[[Node, tuple[Any, ...], dict[str, Any]], Any]
"""Applies an operation to positional and keyword arguments; returns None if the operation has no rule."""

REARRANGE = """
    view _unsafe_view reshape flatten permute transpose t squeeze unsqueeze clone contiguous alias detach to
    _to_copy slice select split split_with_sizes chunk unbind narrow flip roll pixel_shuffle pixel_unshuffle
    constant_pad_nd
"""
"""Operations that move entries, drop some or add constants: each entry of the result is one of the input's."""

NOT_ONE_TENSOR = "the model does not return one tensor that depends on the image"


class Untraceable(Exception):
    """torch.export cannot trace a model; the message says why, in one line."""


@dataclass(frozen=True)
class Walk:
    """The result of a walk along a graph.

    Attributes:
        output: the value that the walk ends with.
        unknown: names of the operations without a rule, each once.
    """

    output: Any
    unknown: tuple[str, ...]


def export(model: nn.Module, image_shape: tuple[int, int, int], known: Container[str]) -> ExportedProgram:
    """Return a model's graph for one image, without in-place operations, its layers kept whole.

    Args:
        model: in eval mode.
        image_shape: (C, H, W).
        known: names of operations with a rule; the others are broken down where PyTorch can.

    Raises:
        Untraceable: torch.export fails.
    """
    like = next(model.parameters(), torch.empty(0))
    example = torch.zeros(1, *image_shape, dtype=like.dtype, device=like.device)
    try:
        program = torch.export.export(model, (example,))
        # Already functional; the conversion is skipped because it takes as long as the export.
        plain = all(_plain(node, known) for node in program.graph.nodes if node.op == "call_function")
        return program if plain else program.run_decompositions({})
    except Exception as error:  # torch.export raises many kinds, and all mean the same here
        reason = first_line(error)
        raise Untraceable(f"torch.export cannot trace the model: {reason}") from error


def walk(program: ExportedProgram, image: Any, apply: Apply, stand_in: Callable[[Node], Any]) -> Walk:
    """Walk along a graph with a given value for the image.

    What does not depend on the image is computed, so that a weight may be a function of parameters. The walk
    goes on after an operation without a rule, to find them all.

    Args:
        program: of `export`.
        image: the value in place of the image; every value that depends on it must be of its type, or hold one that is.
        apply: called for each operation on such values.
        stand_in: the value that replaces an operation's result if it has no rule.
    """
    values: dict[Node, Any] = {}
    unknown: dict[str, None] = {}
    lifted = _lifted(program)
    last_user = {source: node for node in program.graph.nodes for source in node.all_input_nodes}
    for node in program.graph.nodes:
        args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "placeholder":
            values[node] = lifted.get(node.name, image)
        elif node.op == "output":
            # A model that changes the image in place has the changed image among its outputs.
            kinds = [spec.kind for spec in program.graph_signature.output_specs]
            return Walk(args[0][kinds.index(OutputKind.USER_OUTPUT)], tuple(unknown))
        elif not any(isinstance(x, type(image)) for x in pytree.tree_leaves((args, kwargs))):
            values[node] = node.target(*args, **kwargs)
        else:
            result = apply(node, args, kwargs)
            if result is None and node.users:
                unknown[name(node)] = None
                result = stand_in(node)
            values[node] = result
        for source in node.all_input_nodes:
            if last_user[source] is node:
                del values[source]  # images times layers would not fit into memory
    raise AssertionError("a graph ends in its output")


def arguments(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return an operation's arguments by name, defaults included, in the order of its schema."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = {**dict(zip((a.name for a in schema), args, strict=False)), **kwargs}
    return {a.name: given.get(a.name, a.default_value) for a in schema}


def is_real(value: Any) -> bool:
    """Whether a tensor of the traced program holds real numbers: neither indices nor integers, of two bytes or more.

    Conversion to other types jumps, so no rule of the converting operation holds. Lists pass: each of their tensors is
    checked where it is taken out.
    """
    return not isinstance(value, Tensor) or (value.dtype.is_floating_point and value.dtype.itemsize > 1)


def name(node: Node) -> str:
    """Return the name of a node's operation, without its overload."""
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0]


def _plain(node: Node, known: Container[str]) -> bool:
    """Whether the rules cover an operation and it changes nothing in place."""
    return name(node) in known and not node.target._schema.is_mutable  # type: ignore[union-attr]


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
