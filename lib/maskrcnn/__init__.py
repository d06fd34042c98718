"""Mask R-CNN for georeferenced images: train on labelled scenes, detect in scenes of any size.

Data flows `data` -> `training` -> model file, and scene -> `detection` -> instances; `network` is the
Keras 3 model between them, `grass` the only part that talks to GRASS GIS. Importing this package
imports nothing heavy: Keras is loaded by the parts that need it.
"""
