"""Pillow's antialiased resize as two matrix products, whose filters the graph computes from the size of the images.

ONNX has it as one operator, Resize with ``antialias``, which is not the same everywhere: OpenVINO 2026.4 ignores the
attribute without a word, other runtimes refuse it. Products and elementwise operators mean the same in all of them.

Pillow (`ImagingResample`) computes output i of n, along one axis of an input of m, as the sum of the pixels j by
weights f((j + 1/2) s - (i + 1/2) min(m / n, 1)), with s = min(n / m, 1), which are then scaled to a sum of 1: first
along the width, rounded and clipped to a byte, then along the height. Here values are clipped in the same place, but
never rounded, so the result is within half a level of Pillow's plus what its first rounding makes.
"""

from typing import Any, Literal

import numpy as np
from onnx import TensorProto, helper, numpy_helper

Filter = Literal["bilinear", "bicubic"]
"""Pillow's filters: the triangle, and the cubic of Keys 1981 with a = -0.5."""
SUPPORT: dict[Filter, int] = {"bilinear": 1, "bicubic": 2}
"""Half the width of a filter, in pixels of the coarser image."""
GROUP = 56
"""Outputs of an axis whose pixels are multiplied together: more skip fewer pixels of weight 0, fewer cost operators."""


class GraphPart:
    """Nodes and constants that are added to a graph, under names of their own.

    Args:
        prefix: of all names.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self._constants: dict[tuple[Any, ...], Any] = {}

    @property
    def constants(self) -> list[Any]:
        """The constants of all nodes."""
        return list(self._constants.values())

    def constant(self, value: Any, kind: type[np.generic] = np.float32) -> str:
        """Return the name of a constant tensor; equal ones are one."""
        tensor = np.asarray(value, kind)
        key = (tensor.dtype, tensor.shape, tensor.tobytes())
        if key not in self._constants:
            name = f"{self.prefix}constant_{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(tensor, name)
        return self._constants[key].name

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output, which may be given."""
        name = output or f"{self.prefix}{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name


def resize(part: GraphPart, images: str, extents: tuple[str, str], size: tuple[int, int], how: Filter) -> str:
    """Add the resize of images, and return the name of its output (batch, channels, height, width).

    Args:
        part: takes the nodes.
        images: name of a float tensor (batch, channels, any height, any width) of levels, 0 to 255.
        extents: names of its height and its width, int64 tensors without axes; the same name twice if they are equal.
        size: height and width of the output, which holds levels that are not rounded.
        how: the filter.
    """
    tall = _Filters(part, extents[0], size[0], how)
    wide = tall if size[0] == size[1] and extents[0] == extents[1] else _Filters(part, extents[1], size[1], how)
    narrow = _clipped(part, wide.applied(images, axis=3))
    return _clipped(part, tall.applied(narrow, axis=2))


def _clipped(part: GraphPart, levels: str) -> str:
    return part.add("Clip", levels, part.constant(0), part.constant(255))  # a cubic filter overshoots at edges


class _Filters:
    """The filters of one axis: a matrix (pixels, outputs) for each group of outputs, and the pixels that it reads."""

    def __init__(self, part: GraphPart, extent: str, outputs: int, how: Filter) -> None:
        self.part, self.outputs = part, outputs
        groups = max(1, round(outputs / GROUP))
        self.bounds = [round(outputs * i / groups) for i in range(groups + 1)]
        matrix = self._weights(part.add("Cast", extent, to=TensorProto.FLOAT), how)
        self.matrices, self.windows = [matrix], [("", "")]
        if groups > 1:
            self.windows = self._windows(extent, SUPPORT[how])
            self.matrices = [
                part.add(
                    "Slice",
                    matrix,
                    part.add("Concat", first, part.constant([begin], np.int64), axis=0),
                    part.add("Concat", last, part.constant([end], np.int64), axis=0),
                )
                for (first, last), begin, end in zip(self.windows, self.bounds, self.bounds[1:], strict=False)
            ]

    def _weights(self, pixels: str, how: Filter) -> str:
        """Add the matrix (pixels, outputs) of all weights."""
        part, one = self.part, self.part.constant(1)
        index = part.add("Range", part.constant(0), pixels, one)
        centre = part.add("Unsqueeze", part.add("Add", index, part.constant(0.5)), part.constant([1], np.int64))
        shrink = part.add("Min", part.add("Div", part.constant(self.outputs), pixels), one)
        outputs = part.constant(np.arange(self.outputs)[None] + 0.5)
        scale = part.add("Div", pixels, part.constant(self.outputs))
        there = part.add("Mul", outputs, part.add("Min", scale, one))
        distance = part.add("Abs", part.add("Sub", part.add("Mul", centre, shrink), there))
        weights = _cubic(part, distance) if how == "bicubic" else _from(part, 1, distance)
        total = part.add("ReduceSum", weights, part.constant([0], np.int64), keepdims=1)
        return part.add("Div", weights, total)

    def _windows(self, extent: str, support: int) -> list[tuple[str, str]]:
        """Add the first pixel that each group of outputs reads, and the one after its last, at least.

        In whole numbers, from which runtimes with symbolic shapes (tract) can tell the size of a cut.
        """
        part = self.part

        def whole(*values: int) -> str:
            return part.constant(values, np.int64)

        pixels = part.add("Unsqueeze", extent, whole(0))
        rounded_up = part.add("Div", part.add("Add", pixels, whole(self.outputs - 1)), whole(self.outputs))
        reach = part.add("Mul", rounded_up, whole(support))
        found = []
        for begin, end in zip(self.bounds, self.bounds[1:], strict=False):
            low = part.add("Sub", part.add("Div", part.add("Mul", pixels, whole(begin)), whole(self.outputs)), reach)
            high = part.add("Div", part.add("Mul", pixels, whole(end)), whole(self.outputs))
            high = part.add("Add", part.add("Add", high, reach), whole(1))
            found.append((part.add("Max", low, whole(0)), part.add("Min", high, pixels)))
        return found

    def applied(self, values: str, axis: Literal[2, 3]) -> str:
        """Add the product with an axis of values (batch, channels, height, width), and return its name."""
        part, found = self.part, []
        for matrix, (first, last) in zip(self.matrices, self.windows, strict=True):
            read = part.add("Slice", values, first, last, part.constant([axis], np.int64)) if first else values
            turned = part.add("Transpose", matrix, perm=[1, 0]) if axis == 2 else matrix
            found.append(part.add("MatMul", turned, read) if axis == 2 else part.add("MatMul", read, turned))
        return part.add("Concat", *found, axis=axis) if len(found) > 1 else found[0]


def _from(part: GraphPart, end: float, distance: str) -> str:
    """Add max(end - distance, 0)."""
    return part.add("Relu", part.add("Sub", part.constant(end), distance))


def _cubic(part: GraphPart, distance: str) -> str:
    """Add twice the cubic filter: with u = max(2 - t, 0) and v = max(1 - t, 0) it is u² (u - 1) + v² (2 - 4 v).

    That is Keys's 3 t³ - 5 t² + 2 up to t = 1, and - t³ + 5 t² - 8 t + 4 from there to 2. The factor does not matter.
    """
    u, v = _from(part, 2, distance), _from(part, 1, distance)
    outer = part.add("Mul", part.add("Mul", u, u), part.add("Sub", u, part.constant(1)))
    lobe = part.add("Sub", part.constant(2), part.add("Mul", v, part.constant(4)))
    return part.add("Add", outer, part.add("Mul", part.add("Mul", v, v), lobe))
