"""A forward ONNX graph of any exporter as one that the rules know: known shapes, one spelling for each meaning."""
