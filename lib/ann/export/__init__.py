"""Models for other programs: an ONNX file that describes itself, and a STAC item beside it."""
