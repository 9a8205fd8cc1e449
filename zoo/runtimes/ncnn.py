"""ncnn, a runtime without dependencies for phones and small ARM boards, into whose files pnnx converts ONNX."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import UserError
from zoo.runtimes._base import Runtime, Session, Source, one_by_one
from zoo.runtimes._places import operators_in, unknown_operators

LOWER = (
    *("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"),
    *("use_bf16_packed", "use_bf16_storage"),
    *("use_int8_inference", "use_int8_packed", "use_int8_storage", "use_int8_arithmetic"),
)
"""Options that make it compute, or keep weights, in less than fp32; some are on by default."""
LOAD = "import ncnn, sys; sys.exit(ncnn.Net().load_param(sys.argv[1]) != 0)"
"""A program that loads a network's layers: a process of its own shows what ncnn prints of those it does not have."""


class Ncnn(Runtime):
    """ncnn on the CPU, in fp32; one image at a time. A file is two: .param has the layers, .bin the weights."""

    library = "ncnn"
    distributions = ("ncnn",)
    install = "pip install 'robust-zoo[ncnn]'"
    precisions = ("fp32",)
    suffix = ".ncnn.param"

    def version(self) -> str:
        """Return the version of ncnn; its converter must be installed, too."""
        _check_converter(self.install)
        return super().version()

    def convert(self, source: Source, folder: Path) -> Path:
        """Convert by pnnx, and load the layers: pnnx ends without an error on networks that ncnn does not load."""
        onnx_file = folder / "network.onnx"
        onnx_file.write_bytes(source.file.read_bytes())  # pnnx writes beside it
        shape = ",".join(map(str, (1, *source.image_shape)))
        command = [sys.executable, "-c", "import sys, pnnx; sys.exit(pnnx.pnnx())", onnx_file.name]
        done = subprocess.run([*command, f"inputshape=[{shape}]", "fp16=0"], cwd=folder, capture_output=True, text=True)
        param = folder / "network.ncnn.param"
        if done.returncode or not param.is_file():
            said = (done.stderr + done.stdout).strip().splitlines() or ["it gave no reason"]
            known = operators_in("\n".join(said), source.file) if "unsupported" in done.stderr else []
            why = unknown_operators("ncnn", source.file, known) if known else f"pnnx cannot convert: {said[-1][:200]}"
            raise UserError(why)
        _check_layers(param, source.file)
        return param

    def files(self, file: Path) -> tuple[Path, ...]:
        """Return the layers and the weights."""
        return file, file.with_name(f"{file.name.removesuffix('.param')}.bin")

    def open(self, file: Path, threads: int) -> Session:
        """Load both files, with every lower precision turned off."""
        import ncnn

        net = ncnn.Net()
        for option in LOWER:
            if hasattr(net.opt, option):
                setattr(net.opt, option, False)
        net.opt.use_vulkan_compute, net.opt.num_threads = False, threads
        _, weights = self.files(file)
        if not (file.is_file() and weights.is_file()) or not file.read_bytes().startswith(b"7767517"):
            raise UserError(f"ncnn cannot open {file}: it, or {weights.name} beside it, is not a file of ncnn's")
        if net.load_param(str(file)) or net.load_model(str(weights)):
            raise UserError(f"ncnn cannot open {file}: it has layers that this ncnn does not know, or is damaged")
        return _Net(net)


class _Net:
    def __init__(self, net: Any) -> None:
        self._net = net
        self._input, self._output = net.input_names()[0], net.output_names()[0]

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return one_by_one(self._run, images)

    def _run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        import ncnn

        extractor = self._net.create_extractor()
        # It has no batch, ignores strides, and must own the memory.
        code = extractor.input(self._input, ncnn.Mat(image[0]).clone())
        failed, found = (code, None) if code else extractor.extract(self._output)
        if failed:
            raise UserError(f"ncnn cannot run an image: its code is {failed}")
        return np.array(found)[None]


def _check_converter(install: str) -> None:
    import importlib.util

    if importlib.util.find_spec("pnnx") is None:
        raise UserError(f"pnnx, the converter of the runtime ncnn, is not installed: {install}")


def _check_layers(param: Path, source: Path) -> None:
    """Refuse a network with layers that ncnn does not have: their types are named as pnnx has written them."""
    done = subprocess.run([sys.executable, "-c", LOAD, str(param)], capture_output=True, text=True)
    if not done.returncode:
        return
    words = [line.split() for line in (done.stderr + done.stdout).splitlines()]
    unknown = {word[1] for word in words if word[:1] == ["layer"] and "not exists" in " ".join(word)}
    layers = [line.split()[:2] for line in param.read_text(encoding="utf-8").splitlines()[2:]]
    found = ", ".join(
        f"{kind} (layer {next((name for type_, name in layers if type_ == kind), '?')})" for kind in sorted(unknown)
    )
    what = found or "a layer"
    raise UserError(f"ncnn does not know {what} in {source}: leave ncnn out, or choose another architecture")
