"""ONNX graphs of encoders: canonical form, weights, sizes."""
