"""ExecuTorch with XNNPACK's kernels, PyTorch's runtime for phones: it converts the network, not its ONNX file."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import UserError, first_line
from zoo.runtimes._base import Runtime, Session, Source, one_by_one


class ExecuTorch(Runtime):
    """ExecuTorch on the CPU (XNNPACK), as in apps for Android and iOS; one image at a time."""

    library = "executorch"
    distributions = ("executorch",)
    install = "pip install 'robust-zoo[executorch]'"
    precisions = ("fp32",)
    reads_onnx = False
    suffix = ".pte"

    def convert(self, source: Source, folder: Path) -> Path:
        """Lower the network to XNNPACK; operators that it does not have run in ExecuTorch's portable kernels."""
        import torch
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        # It reads memory in contiguous order, whatever the strides.
        network = source.network("executorch").to(memory_format=torch.contiguous_format)
        try:
            program = torch.export.export(network, (torch.zeros(1, *source.image_shape),))
            edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            lowered = edge.to_executorch()
        except Exception as error:  # of its passes, which have no base of their own
            raise UserError(f"executorch cannot convert {source.file}: {first_line(error)}") from None
        _check_operators(lowered.exported_program().graph, source.file)
        path = folder / "network.pte"
        path.write_bytes(lowered.buffer)
        return path

    def open(self, file: Path, threads: int) -> Session:
        """Load a program; its threads are shared by all programs of the process."""
        import executorch.extension.pybindings.portable_lib as library
        from executorch.runtime import Runtime as Library

        if library._threadpool_get_thread_count() != threads:
            library._unsafe_reset_threadpool(threads)
        try:
            program = Library.get().load_program(file.read_bytes())
            method = program.load_method("forward")
        except Exception as error:  # RuntimeErrors with a code of its own
            raise UserError(f"executorch cannot open {file}: {first_line(error)}") from None
        if method is None:
            raise UserError(f"executorch cannot open {file}: it has no method forward")
        return _Program(program, method)


class _Program:
    def __init__(self, program: Any, method: Any) -> None:
        self._program, self._method = program, method  # a method reads its program's memory

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return one_by_one(self._run, images)
        except RuntimeError as error:
            raise UserError(f"executorch cannot run an image: {first_line(error)}") from None

    def _run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        found = self._method.execute([torch.from_numpy(image)])[0]
        return found.numpy().copy()  # its memory is reused by the next run


def _check_operators(graph: Any, file: Path) -> None:
    """Refuse a program with operators that its kernels do not have, each named with the layer that calls it."""
    from executorch.runtime import Runtime as Library

    known = Library.get().operator_registry.operator_names
    missing: dict[str, str] = {}
    for node in graph.nodes:
        schema = getattr(getattr(node.target, "_schema", None), "name", None)
        if node.op != "call_function" or schema is None or not schema.startswith("aten::"):
            continue
        overload = getattr(node.target, "_overloadname", "") or node.target._schema.overload_name
        name = f"{schema}.{overload}" if overload else schema
        if name not in known:
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            missing.setdefault(name, str(stack[-1][0]).removeprefix("L['self'].") if stack else node.name)
    if missing:
        found = ", ".join(f"{name} (at {layer})" for name, layer in missing.items())
        raise UserError(f"executorch does not know {found} in {file}: leave executorch out")
