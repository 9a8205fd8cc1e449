"""Open an exported file in ONNX Runtime on the requested device, and on no other."""

import contextlib
import ctypes
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from zoo.errors import UserError
from zoo.runs.file_metadata import Metadata
from zoo.runtime.processors import usable_processors

Device = Literal["auto", "cpu", "cuda"]
INPUT, OUTPUT = "images", "logits"
PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    # An exhaustive search costs about a second per shape, the default algorithm can be many times slower.
    # TF32 would give logits that differ from PyTorch's by more than the export's limit.
    "cuda": [
        ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}),
        "CPUExecutionProvider",
    ],
}

ort.set_default_logger_severity(4)  # its warnings bypass Python's stderr; failures are raised as exceptions


def default_threads() -> int:
    """Return 2, or 1 where this process may use one processor only."""
    return min(2, usable_processors())


def cuda_devices() -> int:
    """Count the CUDA devices that the driver shows to this process; 0 without a driver."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(library)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


def resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    """Turn ``auto`` into the device to use: CUDA if ONNX Runtime has it and there is a GPU, otherwise the CPU.

    Raises:
        UserError: CUDA was requested by name and is not available, or there is no such device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown device {device!r}: choose from auto, cpu, cuda")
    if device == "cpu":
        return "cpu"
    built = "CUDAExecutionProvider" in ort.get_available_providers()
    if built and cuda_devices() > 0:
        return "cuda"
    if device == "auto":
        return "cpu"
    reason = "there is no CUDA device here" if built else "this onnxruntime is not onnxruntime-gpu"
    raise UserError(f"device 'cuda' cannot be used, {reason}: choose cpu or auto")


class OnnxModel:
    """A classifier that `zoo export` wrote, open in ONNX Runtime.

    Args:
        path: the file.
        device: where to run; see `resolve_device`.
        threads: of one operator on the CPU; None: `default_threads`.
        processors: one for each thread except the first, which is the caller's; empty: the system places them.
        raw: take a file that preprocesses uint8 images itself as well.

    Attributes:
        metadata: of the file.
        preprocesses: whether it takes uint8 images (B, h, w, C) of any size, see `zoo.serving.preprocessing`.
        provider: ONNX Runtime's name of the provider that runs it.
        session: the open session, for more than logits.

    Raises:
        UserError: the file is missing, damaged or not ours, or the device cannot run it.
    """

    def __init__(
        self,
        path: Path,
        device: Device = "auto",
        threads: int | None = None,
        processors: Sequence[int] = (),
        *,
        raw: bool = False,
    ) -> None:
        self.path = path
        self.device = resolve_device(device)
        self.threads = threads or default_threads()
        self.session = _open(path, self.device, self.threads, processors)
        self.provider = provider_name(self.device)
        self.metadata = _metadata(path, self.session)
        self.preprocesses = self.session.get_inputs()[0].type == "tensor(uint8)"
        if self.preprocesses and not raw:
            raise UserError(
                f"{path} preprocesses uint8 images itself: give a file exported without --embed-preprocessing"
            )

    def logits(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Classify images (B, C, H, W) in [0, 1], or as `preprocesses` says: logits (B, classes).

        Raises:
            UserError: the batch does not fit in memory, or cannot be run.
        """
        try:
            return self.session.run([OUTPUT], {INPUT: images})[0]
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise UserError(failed_run(len(images), error)) from None


def failed_run(batch: int, error: Exception) -> str:
    """Describe in one line why a batch could not be run."""
    text = " ".join(str(error).split()) or type(error).__name__
    full = ("alloc", "out of memory", "CUBLAS_STATUS_ALLOC", "Array is too big", "maximum allowed dimension")
    if isinstance(error, MemoryError) or any(word in text for word in full):
        return f"a batch of {batch} images does not fit in memory: choose a smaller --batch-size or --n ({text[:200]})"
    return f"a batch of {batch} images cannot be run: {text[:300]}"


def provider_name(device: Literal["cpu", "cuda"]) -> str:
    """Return ONNX Runtime's name of the provider of a device."""
    first = PROVIDERS[device][0]
    return first if isinstance(first, str) else first[0]


def open_session(
    model: Path | bytes,
    device: Literal["cpu", "cuda"],
    threads: int,
    stop_spinning: bool = False,
    processors: Sequence[int] = (),
) -> Any:
    """Open a graph in ONNX Runtime; its exceptions are passed on.

    Args:
        model: a file, or a file's content.
        device: where to run it, or as much of it as the provider takes.
        threads: of one operator on the CPU.
        stop_spinning: stop the threads' busy waiting when a run ends, for several sessions in one process.
        processors: see `OnnxModel`.

    Raises:
        UserError: another provider than the device's would run it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if stop_spinning:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if processors:  # ONNX Runtime counts them from 1
        places = ";".join(str(processor + 1) for processor in processors)
        options.add_session_config_entry("session.intra_op_thread_affinities", places)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if device == "cuda":
            ort.preload_dlls()  # finds the libraries that come with PyTorch
        session = ort.InferenceSession(model, options, providers=PROVIDERS[device])
    found, wanted = session.get_providers()[0], provider_name(device)
    if found != wanted:
        raise UserError(
            f"{model if isinstance(model, Path) else 'a layer'}: ONNX Runtime would run it with {found}, not {wanted} "
            "(CUDA or cuDNN libraries of another version than it needs?): repair that, or choose cpu"
        )
    return session


def _open(path: Path, device: Literal["cpu", "cuda"], threads: int, processors: Sequence[int]) -> Any:
    if not path.is_file():
        raise UserError(f"no ONNX file at {path}: write one with `zoo export RUN`")
    try:
        return open_session(path, device, threads, processors=processors)
    except UserError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise UserError(_why_not(path, device, str(error))) from None


def _why_not(path: Path, device: Literal["cpu", "cuda"], error: str) -> str:
    """Describe what is wrong with a file that ONNX Runtime cannot open."""
    error = " ".join(error.replace(str(path), "").split())  # the path is not part of the error
    if "external" in error.lower() or "model_path must not be empty" in error:
        files = ", ".join(_weight_files(path)) or "a file"
        return (
            f"{path} keeps its weights beside it in {files}, which is missing or too short: copy both, or export again"
        )
    operator = re.search(r"implementation for (?:the node )?\S*?(\w+)\((\d+)\)|No Op registered for (\w+)", error)
    operator = operator or re.search(r"([\w.]+:\w+|\w+)\((?:-?\d+)\) is not a registered function/op", error)
    if operator:
        name = next(group for group in operator.groups() if group)
        return f"{path} has the operator {name}, which {provider_name(device)} of this ONNX Runtime lacks: update it"
    version = re.search(r"IR version: \d+|Opset \d+ is under development", error)
    if version:
        return f"{path} is of a newer ONNX than this ONNX Runtime {ort.__version__} knows ({version[0]}): update it"
    reason = re.sub(r"^\[\w+\] : \d+ : \w+ : (Load model from\s+failed:)?\s*", "", error).rstrip(".")
    if "protobuf" in error.lower():
        return f"{path} is not an ONNX file, or is truncated ({reason})"
    return f"ONNX Runtime cannot open {path}: {reason[:300]}"


def _weight_files(path: Path) -> list[str]:
    """Return the names of the files that hold an ONNX file's weights, which ONNX Runtime does not always report."""
    try:
        weights = onnx.load(path, load_external_data=False).graph.initializer
    except Exception:  # protobuf's, of a file that is damaged, too
        return []
    return sorted({x.value for weight in weights for x in weight.external_data if x.key == "location"})


def _metadata(path: Path, session: Any) -> Metadata:
    inputs, outputs = [x.name for x in session.get_inputs()], [x.name for x in session.get_outputs()]
    if (inputs, outputs) != ([INPUT], [OUTPUT]):
        reason = f"it maps {', '.join(inputs)} to {', '.join(outputs)}, not {INPUT} to {OUTPUT}"
    else:
        try:
            return Metadata.from_props(session.get_modelmeta().custom_metadata_map)
        except ValueError as error:
            reason = f"its metadata has {error}"
    raise UserError(f"{path} was not written by `zoo export`: {reason}")
