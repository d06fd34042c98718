#!/usr/bin/env python3

############################################################################
#
# MODULE:     i.ann.classifier.predict
# AUTHOR(S):  the i.ann.maskrcnn developers
# PURPOSE:    Tell of which class images are with a classifier
# COPYRIGHT:  (C) 2026 by the i.ann.maskrcnn developers
#
#             This program is free software under the GNU General Public
#             License (>=v2). Read the file COPYING that comes with GRASS
#             for details.
#
#############################################################################

# %module
# % description: Tells of which class images, features or windows of maps are, with a trained classifier.
# % overwrite: yes
# % keyword: imagery
# % keyword: deep learning
# % keyword: ann
# % keyword: classification
# % keyword: vector
# % keyword: raster
# %end
# %flag
# % key: u
# % label: Update the given vector map instead of making a new one
# % description: It must be in the current mapset; columns that exist are overwritten with --overwrite only
# % guisection: Output
# %end
# %flag
# % key: k
# % label: Run the network with Keras only
# % description: By default OpenVINO runs it where that is installed and Keras has no GPU
# % guisection: Prediction
# %end
# %option G_OPT_R_INPUT
# % key: band1
# % label: Raster map of the first band (red)
# % description: The map's own cells are used, within the computational region
# % required: no
# % guisection: Input
# %end
# %option G_OPT_R_INPUT
# % key: band2
# % label: Raster map of the second band (green)
# % description: With the same cells as band1
# % required: no
# % guisection: Input
# %end
# %option G_OPT_R_INPUT
# % key: band3
# % label: Raster map of the third band (blue)
# % description: With the same cells as band1
# % required: no
# % guisection: Input
# %end
# %option G_OPT_I_GROUP
# % key: group
# % label: Imagery group with the bands of one scene
# % description: For models of any number of bands; the order of the maps is that of training
# % required: no
# % guisection: Input
# %end
# %option G_OPT_V_INPUT
# % key: vector
# % label: Vector map of areas or points to tell the classes of
# % description: By what the maps show around or inside of each; all areas of a category are one
# % required: no
# % guisection: Input
# %end
# %option
# % key: chip_size
# % type: double
# % label: Side of the square around a feature, in map units
# % description: By default that of training; larger areas are seen as a whole
# % required: no
# % guisection: Input
# %end
# %option
# % key: window
# % type: double
# % label: Side of windows over all of the maps to tell the classes of, in map units
# % description: The ground that an image of the training showed
# % required: no
# % guisection: Input
# %end
# %option
# % key: step
# % type: double
# % label: Distance of windows, in map units
# % description: It is the resolution of the result; by default windows lie side by side
# % required: no
# % guisection: Input
# %end
# %option G_OPT_M_DIR
# % key: images_directory
# % label: Directory of images to classify
# % description: Photos are turned as their metadata says
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
# % description: As written by i.ann.classifier.train
# % required: yes
# % guisection: Model
# %end
# %option
# % key: batch_size
# % type: integer
# % label: Images that go through the network at once
# % description: More images can be faster on a GPU, but need more memory
# % options: 1-
# % answer: 16
# % required: no
# % guisection: Prediction
# %end
# %option
# % key: gpu_count
# % type: integer
# % label: Number of GPUs to use
# % description: Images are shared out among them; without any GPU, 1 means the CPU
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
# %option G_OPT_F_OUTPUT
# % key: table
# % label: File for the classes of the images, .csv or .json
# % description: Image, coordinates if known, class, probability, runner-up; in JSON all probabilities
# % required: no
# % guisection: Output
# %end
# %option
# % key: output
# % type: string
# % label: Name of the map for the classes
# % description: Points for images, a copy of the features with new columns, or a raster map of windows
# % required: no
# % guisection: Output
# %end
# %option
# % key: prefix
# % type: string
# % label: What the names of the new columns begin with
# % description: Columns are class, probability, runner_up and runner_up_probability
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
# %rules
# % required: images_directory, band1, group
# % exclusive: images_directory, band1, group
# % requires: band1, vector, window
# % requires: group, vector, window
# % requires: band2, band1
# % requires: band3, band2
# % exclusive: vector, window
# % requires: vector, band1, group
# % requires: window, band1, group
# % requires: step, window
# % requires: chip_size, vector
# % requires: prefix, vector
# % requires: table, images_directory
# % requires: images_format, images_directory
# % requires: -u, vector
# % exclusive: -u, output
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
        "classifier.grass.predict",
        options,
        flags,
        packages=PACKAGES,
        interrupted="Interrupted. Nothing was written",
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
