"""Functions that translate ONNX operators, grouped by the kind of operator."""
