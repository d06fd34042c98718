"""Classifier for georeferenced images: of which class is this image, parcel or window.

What any network needs is in `ann`; here is what is the classifier's own. Importing this package imports
nothing heavy: Keras is loaded by the parts that need it.
"""
