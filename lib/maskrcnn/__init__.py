"""Mask R-CNN for georeferenced images: train on labelled scenes, detect in scenes of any size.

What any network needs is in `ann`; here is what is Mask R-CNN's own. Importing this package imports nothing
heavy: Keras is loaded by the parts that need it.
"""
