"""What makes Keras fast on PyTorch. Imported with that backend only."""
