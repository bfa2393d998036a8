"""The ONNX importer: the only place that reads ONNX."""
