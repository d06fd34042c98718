#!/usr/bin/env python3

############################################################################
#
# MODULE:     i.ann.unet.predict
# AUTHOR(S):  the i.ann.maskrcnn developers
# PURPOSE:    Tell the class of each cell of raster maps or images with a U-Net
# COPYRIGHT:  (C) 2026 by the i.ann.maskrcnn developers
#
#             This program is free software under the GNU General Public
#             License (>=v2). Read the file COPYING that comes with GRASS
#             for details.
#
#############################################################################

# %module
# % description: Tells the class of each cell of raster maps or images with a trained U-Net.
# % overwrite: yes
# % keyword: imagery
# % keyword: deep learning
# % keyword: ann
# % keyword: semantic segmentation
# % keyword: classification
# % keyword: raster
# %end
# %flag
# % key: e
# % label: Images of the directory are georeferenced by files beside them
# % description: World files (.tfw, .jgw, .pgw, .wld) or .aux.xml files; each image must have one
# % guisection: Input
# %end
# %flag
# % key: k
# % label: Run the network with Keras only
# % description: By default OpenVINO runs it where that is installed and Keras has no GPU
# % guisection: Prediction
# %end
# %flag
# % key: t
# % label: Look at each tile in all eight flips and turns
# % description: Probabilities are means, whose deviation can be written; it takes eight times as long
# % guisection: Prediction
# %end
# %option G_OPT_R_INPUTS
# % key: band1
# % label: Raster map of the first band (red), one for each scene
# % description: Several maps are several scenes; their own cells are used, within the computational region
# % required: no
# % guisection: Input
# %end
# %option G_OPT_R_INPUTS
# % key: band2
# % label: Raster map of the second band (green), one for each scene
# % description: As many maps as band1, in the same order
# % required: no
# % guisection: Input
# %end
# %option G_OPT_R_INPUTS
# % key: band3
# % label: Raster map of the third band (blue), one for each scene
# % description: As many maps as band1, in the same order
# % required: no
# % guisection: Input
# %end
# %option G_OPT_I_GROUP
# % key: group
# % label: Imagery group with the bands of one scene
# % description: For models of any number of bands; maps in the order of training or with semantic labels
# % required: no
# % guisection: Input
# %end
# %option G_OPT_M_DIR
# % key: images_directory
# % label: Directory of images to classify
# % description: Image files instead of raster maps; each is a scene of its own
# % required: no
# % guisection: Input
# %end
# %option
# % key: images_format
# % type: string
# % label: Ending of the images in the directory
# % description: For example tif, jpg or png; leave empty for all of them
# % required: no
# % guisection: Input
# %end
# %option G_OPT_F_BIN_INPUT
# % key: model
# % label: Model file (.h5)
# % description: As written by i.ann.unet.train
# % required: yes
# % guisection: Model
# %end
# %option
# % key: tile_size
# % type: integer
# % label: Side of the tiles that scenes are cut into, in pixels
# % description: A multiple of 16 (unet_vgg: 8); no value depends on it, but small tiles take longer
# % options: 16-
# % required: no
# % guisection: Prediction
# %end
# %option
# % key: resolution
# % type: double
# % label: Pixel size to work at, in map units
# % description: Scenes are resampled to it, best to that of training; by default the maps' own cells are used
# % required: no
# % guisection: Prediction
# %end
# %option
# % key: batch_size
# % type: integer
# % label: Tiles that go through the network at once
# % description: More tiles can be faster on a GPU, but need more memory
# % options: 1-
# % answer: 1
# % required: no
# % guisection: Prediction
# %end
# %option
# % key: gpu_count
# % type: integer
# % label: Number of GPUs to use
# % description: Tiles are shared out among them; without any GPU, 1 means the CPU
# % options: 1-
# % answer: 1
# % required: no
# % guisection: Prediction
# %end
# %option
# % key: nprocs
# % type: integer
# % label: Number of threads to use
# % description: 0 uses all cores
# % options: 0-
# % answer: 0
# % required: no
# % guisection: Prediction
# %end
# %option
# % key: format
# % type: string
# % label: Format of the summary
# % description: JSON goes to the standard output
# % options: plain,json
# % answer: plain
# % required: no
# % guisection: Output
# %end
# %option G_OPT_R_OUTPUT
# % key: output
# % label: Name of the map of classes, raster and vector
# % description: Other maps are called after it: with the scene where there are several, with the class
# % required: no
# % guisection: Output
# %end
# %option
# % key: output_type
# % type: string
# % label: What to write
# % description: Of each scene
# % options: class,probability,deviation,area
# % descriptions: class;Classes;probability;Probabilities;deviation;Deviations (-t);area;Vector areas
# % answer: class
# % required: no
# % multiple: yes
# % guisection: Output
# %end
# %option
# % key: threshold
# % type: double
# % label: Probability from which a cell is of the class, for models of one class
# % description: By default 0.5; of several classes the most probable one is chosen
# % options: 0-1
# % required: no
# % guisection: Prediction
# %end
# %option
# % key: minimum_area
# % type: double
# % label: Area below which vector areas are given to a neighbour
# % description: In squared map units (square metres where these are degrees); smaller holes are closed
# % required: no
# % guisection: Output
# %end
# %option
# % key: regularize
# % type: double
# % label: Tolerance for right-angled outlines of areas, in map units
# % description: How far outlines may lie beside straight walls; areas without right angles stay as they are
# % required: no
# % guisection: Output
# %end
# %option
# % key: cluster
# % type: string
# % label: Ray cluster to work on: auto, or host:port of its first node
# % description: Needs the Python package ray; leave empty to work on this machine
# % required: no
# % guisection: Prediction
# %end
# %option G_OPT_F_OUTPUT
# % key: export
# % label: Write the model as an ONNX file (.onnx) for other programs, with a STAC item beside it, and end
# % description: For tiles of tile_size, by default those of training; needs the Python package onnx
# % required: no
# % guisection: Model
# %end
# %rules
# % required: band1, group, images_directory, export
# % exclusive: band1, group, images_directory, export
# % required: output, export
# % requires: band2, band1
# % requires: band3, band2
# % requires: -e, images_directory
# % requires: images_format, images_directory
# %end

import os
import sys

import grass.script as gs

PACKAGES = ["numpy", "h5py", "scipy", "rasterio", "keras>=3.14"]


def main():
    options, flags = gs.parser()
    find_library()
    from ann.grass.script import run_script

    run_script(
        "unet.grass.predict", options, flags, packages=PACKAGES, interrupted="Interrupted. No map was written"
    )


def find_library():
    """Make the library importable: beside the installed module, or in the checkout that this file is in."""
    here = os.path.dirname(os.path.abspath(__file__))
    folders = [
        os.path.join(here, "..", "lib"),
        os.path.join(here, "..", "etc", "i.ann.maskrcnn"),
        gs.utils.get_lib_path("i.ann.maskrcnn", "ann"),
    ]
    for folder in folders:
        if folder and os.path.isfile(os.path.join(folder, "ann", "__init__.py")):
            sys.path.insert(0, os.path.abspath(folder))
            return
    gs.fatal("The library was not found. Install the addon again: g.extension extension=i.ann.maskrcnn")


if __name__ == "__main__":
    main()
