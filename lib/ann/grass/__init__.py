"""GRASS GIS in and out: bands as scenes, instances as raster and vector maps.

Of `ann` only this part imports `grass`; it needs a GRASS session.
"""
