"""The backbones there are, by the names of the option `backbone`; knows no Keras."""

from __future__ import annotations

BACKBONES = ("resnet18", "resnet50", "resnet101")
