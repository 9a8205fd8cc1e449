"""Turn a trained model into ONNX, check it and time it. Nothing here needs Lightning."""
