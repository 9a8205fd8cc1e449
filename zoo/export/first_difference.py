"""The first layer at which the answers of two runtimes part: a network is cut off after one layer after another."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.export.parity import LIMIT
from zoo.latency.session import INPUT, open_session
from zoo.runtimes import Runtime, Source

BRANCH = 6
"""Layers before the one that was found which are looked at, since branches have no order."""


@dataclass(frozen=True)
class Cut:
    """A network that ends after one of its layers.

    Attributes:
        source: what a runtime converts.
        expected: the layer's output on some images.
    """

    source: Source
    expected: NDArray[np.float32]


def first_difference(runtime: Runtime, source: Source, images: NDArray[np.float32], threads: int) -> str | None:
    """Return the first layer whose output on a few images is another than in ONNX Runtime or PyTorch.

    Layers are halved: one cut is converted and opened for each halving. Where the fault is one of layers fused
    together it may vanish with the cut; then there is no such layer.

    Args:
        runtime: that answers otherwise.
        source: the network.
        images: (batch, C, H, W).
        threads: of the sessions.

    Returns:
        The layer's name; None if every cut that can be converted answers alike.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        layers, cut = (_nodes if runtime.reads_onnx else _modules)(source, images, folder)

        @cache
        def is_equal(i: int) -> bool:
            place = folder / str(i)
            place.mkdir()
            return _is_equal(runtime, cut(i), images, threads, place)

        agrees, parts = -1, len(layers)
        while parts - agrees > 1:
            middle = (agrees + parts) // 2
            agrees, parts = (middle, parts) if is_equal(middle) else (agrees, middle)
        # A layer of a branch beside the fault agrees, though it comes later.
        while before := [i for i in range(max(0, parts - BRANCH), parts) if not is_equal(i)]:
            parts = before[0]
        return layers[parts] if parts < len(layers) else None


def _is_equal(runtime: Runtime, cut: Cut, images: NDArray[np.float32], threads: int, folder: Path) -> bool:
    try:
        session = runtime.open(runtime.convert(cut.source, folder), threads)
        found = session.logits(images)
    except UserError:  # a cut that cannot be run says nothing of the layers before it
        return True
    expected = cut.expected.reshape(-1)
    if found.size != expected.size:
        return False
    return bool(abs(found.reshape(-1) - expected).max() <= LIMIT * abs(expected).max())


def _nodes(source: Source, images: NDArray[np.float32], folder: Path) -> tuple[list[str], Callable[[int], Cut]]:
    """Return the nodes of an ONNX graph, and a function that cuts the graph off after one of them."""
    model = onnx.shape_inference.infer_shapes(onnx.load(source.file))
    kinds = {x.name: x.type.tensor_type.elem_type for x in model.graph.value_info}
    nodes = [x for x in model.graph.node if kinds.get(x.output[0]) == onnx.TensorProto.FLOAT]
    names = [f"{node.name or node.output[0]} ({node.op_type})" for node in nodes]

    def cut(i: int) -> Cut:
        path = folder / f"cut{i}.onnx"
        output = nodes[i].output[0]
        onnx.save(onnx.utils.Extractor(model).extract_model([INPUT], [output]), path)
        expected = open_session(path, "cpu", 1).run([output], {INPUT: images})[0]
        return Cut(Source(path, source.image_shape), expected)

    return names, cut


def _modules(source: Source, images: NDArray[np.float32], folder: Path) -> tuple[list[str], Callable[[int], Cut]]:
    """Return the layers of a PyTorch network in the order of their calls, and a function that cuts it off after one."""
    network = source.network("this runtime")
    called: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def after(module: nn.Module, given: tuple[Tensor, ...], result: object) -> None:
            if name not in called and isinstance(result, Tensor):
                called.append(name)

        return after

    leaves = [(name, module) for name, module in network.named_modules() if name and not list(module.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    with torch.no_grad():
        network(torch.from_numpy(images[:1]))
    for handle in handles:
        handle.remove()

    def cut(i: int) -> Cut:
        part = _Until(network, called[i])
        with torch.no_grad():
            expected = torch.cat([part(image) for image in torch.from_numpy(images).split(1)]).numpy()
        return Cut(Source(source.file, source.image_shape, lambda: part), expected)

    return called, cut


class _Until(nn.Module):
    """A network that returns the output of one of its layers."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        self.network, self.layer = network.eval(), layer
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Run the network; what follows the layer is dead code to an exporter."""
        kept: list[Tensor] = []
        layer = self.network.get_submodule(self.layer)
        handle = layer.register_forward_hook(lambda *call: kept.append(call[2].clone()))  # what follows may be in place
        try:
            self.network(images)
        finally:
            handle.remove()
        return kept[0]
