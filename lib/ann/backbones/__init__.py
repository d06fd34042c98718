"""Backbones: images in, features by stride out."""
