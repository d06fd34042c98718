"""GRASS GIS in and out: bands as scenes, instances as raster and vector maps.

The only part of the library that imports `grass`; it needs a GRASS session. The others don't import it.
"""
