"""U-Net for georeferenced images: of which class is each cell.

What any network needs is in `ann`; here is what is the U-Net's own. Importing this package imports nothing
heavy: Keras is loaded by the parts that need it.
"""
