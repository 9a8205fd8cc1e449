"""Functions for a model of your own: compress, attack, evaluate, export. `zoo` exports them."""

from zoo.api.compression import Compressed, compress, deploy
from zoo.api.onnx_export import export_onnx
from zoo.api.robustness import Attacked, attack, evaluate

__all__ = ["Attacked", "Compressed", "attack", "compress", "deploy", "evaluate", "export_onnx"]
