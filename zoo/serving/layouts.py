"""Folders from which inference servers load a model: Triton's model repository, and KServe's storage."""

import hashlib
import re
from typing import Literal

from zoo.latency.session import INPUT, OUTPUT
from zoo.runs.file_metadata import Metadata

Layout = Literal["onnx", "triton", "kserve"]
MAX_BATCH = 64
"""Largest batch that a server forms."""
QUEUE_DELAY_US = 1000
"""Longest time that a request waits for others to share its batch, in microseconds."""


LONGEST_NAME = 200
"""Characters of a model's name: file systems take 255 bytes, and a folder that is being written has a longer name."""
LONGEST_SERVICE = 63
"""Characters of a name in Kubernetes."""


def model_name(name: str) -> str:
    """Return a name that servers and file systems take: letters, digits, ``_``, ``.`` and ``-``, at most 200.

    Another name than this is cleaned, and ends with a part of its own hash: no two names become one model.
    """
    return _distinct(re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "model", name, LONGEST_NAME)


def _service_name(name: str) -> str:
    """Return a model's name as one of a service in Kubernetes: a letter first, then also digits and ``-``."""
    service = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    if not service[:1].isalpha():
        service = f"model-{service}".rstrip("-")
    return _distinct(service, name, LONGEST_SERVICE)


def _distinct(cleaned: str, name: str, longest: int) -> str:
    """Return a cleaned name that says by a hash of the name what cleaning took away, if it took something."""
    if cleaned == name and len(name) <= longest:
        return name
    tail = f"-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return cleaned[: longest - len(tail)].rstrip("-") + tail


def triton_files(name: str, metadata: Metadata, *, preprocessing: bool) -> dict[str, str]:
    """Return the text files of a model in a Triton repository, by path; the graph goes to ``1/model.onnx``.

    Args:
        name: of the model, as by `model_name`; its folder must have the same.
        metadata: of the graph.
        preprocessing: whether the graph takes uint8 images of any size; see `zoo.serving.preprocessing`.
    """
    return {
        f"{name}/config.pbtxt": _config(name, metadata, preprocessing),
        f"{name}/labels.txt": "".join(f"{' '.join(label.split())}\n" for label in metadata.class_names),
    }


def _config(name: str, metadata: Metadata, preprocessing: bool) -> str:
    kind = "TYPE_UINT8" if preprocessing else "TYPE_FP32"
    dims = (-1, -1, metadata.image_shape[0]) if preprocessing else metadata.image_shape
    # A server batches only requests of equal shape, so images of other sizes do not wait.
    return f"""name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {MAX_BATCH}
input [
  {{
    name: "{INPUT}"
    data_type: {kind}
    dims: [ {", ".join(map(str, dims))} ]
  }}
]
output [
  {{
    name: "{OUTPUT}"
    data_type: TYPE_FP32
    dims: [ {len(metadata.class_names)} ]
    label_filename: "labels.txt"
  }}
]
dynamic_batching {{
  max_queue_delay_microseconds: {QUEUE_DELAY_US}
}}
"""


def kserve_files(name: str, metadata: Metadata, *, preprocessing: bool) -> dict[str, str]:
    """Return the text files of a KServe storage folder: a Triton repository, and the manifest that serves it.

    KServe mounts the folder behind ``storageUri`` and starts Triton on it, which answers the Open Inference Protocol
    (v2). The manifest lies beside the model's folder; Triton looks at folders only.

    Args:
        name, metadata, preprocessing: see `triton_files`.
    """
    manifest = f"""apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: "{_service_name(name)}"  # quoted, or "off" would be no name
spec:
  predictor:
    model:
      modelFormat:
        name: onnx
      protocolVersion: v2
      runtime: kserve-tritonserver
      # Where this folder was copied to, such as s3://BUCKET/FOLDER or pvc://CLAIM/FOLDER.
      storageUri: pvc://models/{name}
"""
    return triton_files(name, metadata, preprocessing=preprocessing) | {"inference-service.yaml": manifest}
