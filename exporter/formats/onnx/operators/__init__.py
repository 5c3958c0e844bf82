"""Functions that translate ONNX operators, grouped by what the operators do."""
