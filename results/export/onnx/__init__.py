"""Exports to ONNX: one file that onnxruntime runs, with codes of the stored widths in memory too."""
