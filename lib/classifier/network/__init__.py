"""The network and its training model."""
