"""The Mask R-CNN in Keras 3: static shapes, `keras.ops` throughout, on any of Keras' backends.

It knows no file and no GRASS. `model.build_network` makes the network, `training.TrainingNetwork` trains it,
`inference.Detector` runs it, `layout.legacy_layout` says where its weights stand in a model file.
"""
