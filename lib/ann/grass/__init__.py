"""GRASS GIS in and out: bands as scenes, instances as raster and vector maps.

Of `ann` only this part imports `grass`; it needs a GRASS session.
"""

import contextlib
import os

# GRASS' bindings look for each of its libraries by running gcc, ld and objdump, 0.2 s for the larger ones,
# unless they are told where these lie
with contextlib.suppress(ImportError, KeyError):
    from grass.lib.ctypes_loader import add_library_search_dirs

    add_library_search_dirs([os.path.join(os.environ["GISBASE"], "lib")])
