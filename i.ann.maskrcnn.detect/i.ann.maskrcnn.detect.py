#!/usr/bin/env python3

############################################################################
#
# MODULE:     i.ann.maskrcnn.detect
# AUTHOR(S):  Ondrej Pesek (first version), the i.ann.maskrcnn developers
# PURPOSE:    Detect objects in raster maps or images with a Mask R-CNN
# COPYRIGHT:  (C) 2017-2026 by the i.ann.maskrcnn developers
#
#             This program is free software under the GNU General Public
#             License (>=v2). Read the file COPYING that comes with GRASS
#             for details.
#
#############################################################################

# %module
# % description: Detects objects in raster maps or images with a trained Mask R-CNN network.
# % overwrite: yes
# % keyword: imagery
# % keyword: deep learning
# % keyword: ann
# % keyword: object recognition
# % keyword: instance segmentation
# % keyword: vector
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
# % guisection: Detection
# %end
# %flag
# % key: t
# % label: Look at each tile in all eight flips and turns
# % description: Better and with a measure of certainty (columns votes and spread), in eight times the time
# % guisection: Detection
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
# % label: Directory of images to detect in
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
# % label: Model file (.h5), or a checkpoint of torchvision or detectron2 (.pth, .pkl, .safetensors)
# % description: As written by i.ann.maskrcnn.train, or any Mask R-CNN model in the same layout
# % required: yes
# % guisection: Model
# %end
# %option
# % key: classes
# % type: string
# % label: Names of the classes, in the order of training
# % description: May be left out if the model file knows its classes
# % required: no
# % multiple: yes
# % guisection: Model
# %end
# %option
# % key: model_settings
# % type: string
# % label: What a checkpoint of another program does not tell about its model
# % description: As name=value, for example epsilon=0,shorter_side=1024; see the manual
# % key_desc: name=value
# % required: no
# % multiple: yes
# % guisection: Model
# %end
# %option
# % key: confidence
# % type: double
# % label: Lowest score of a detection
# % description: Higher values give fewer, more certain detections
# % options: 0-1
# % answer: 0.7
# % required: no
# % guisection: Detection
# %end
# %option
# % key: tile_size
# % type: integer
# % label: Side of the tiles that scenes are cut into, in pixels
# % description: A multiple of 64; by default what suits the model and the scene
# % options: 64-
# % required: no
# % guisection: Detection
# %end
# %option
# % key: overlap
# % type: integer
# % label: Pixels that neighbouring tiles share
# % description: Best as large as most objects are; by default an eighth of the tile size
# % options: 1-
# % required: no
# % guisection: Detection
# %end
# %option
# % key: resolution
# % type: double
# % label: Pixel size to detect at, in map units
# % description: Scenes are resampled to it, best to that of training; by default the maps' own cells are used
# % required: no
# % guisection: Detection
# %end
# %option
# % key: batch_size
# % type: integer
# % label: Tiles that go through the network at once
# % description: By default 1, on a GPU 4; more tiles need more memory
# % options: 1-
# % required: no
# % guisection: Detection
# %end
# %option
# % key: precision
# % type: string
# % label: Precision of the calculations of Keras
# % description: auto takes float32 on a CPU and 16 bits on a GPU; tf32 is a faster float32 of a GPU
# % options: auto,float32,tf32,bfloat16,float16
# % answer: auto
# % required: no
# % guisection: Detection
# %end
# %option
# % key: gpu_count
# % type: integer
# % label: Number of GPUs to use
# % description: Tiles are shared out among them; without any GPU, 1 means the CPU
# % options: 1-
# % answer: 1
# % required: no
# % guisection: Detection
# %end
# %option
# % key: nprocs
# % type: integer
# % label: Number of threads to use
# % description: 0 uses all cores
# % options: 0-
# % answer: 0
# % required: no
# % guisection: Detection
# %end
# %option
# % key: output_type
# % type: string
# % label: Kinds of maps to write
# % description: One vector map per class, raster maps per scene
# % options: area,point,raster,class,score
# % descriptions: area;Areas;point;Points;raster;Raster of instances;class;... of classes;score;... of scores
# % answer: area
# % required: no
# % multiple: yes
# % guisection: Output
# %end
# %option
# % key: output
# % type: string
# % label: Beginning of the names of all new maps
# % description: Vector maps are named after the classes, raster maps instances, classes and scores
# % key_desc: prefix
# % required: no
# % guisection: Output
# %end
# %option
# % key: generalize
# % type: double
# % label: Tolerance for simpler outlines of areas, in map units
# % description: Removes the steps of the cells from outlines (v.generalize); by default they follow the cells
# % required: no
# % guisection: Output
# %end
# %option
# % key: regularize
# % type: double
# % label: Tolerance for right-angled outlines of areas, in map units
# % description: How far outlines may lie beside straight walls; objects without right angles stay as they are
# % required: no
# % guisection: Output
# %end
# %option G_OPT_V_OUTPUT
# % key: label_next
# % label: Name of a new vector map of the windows to label next
# % description: Ranked by how uncertain the network is of what it finds there
# % required: no
# % guisection: Output
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
# %option G_OPT_F_OUTPUT
# % key: export
# % label: Write the model as an ONNX file (.onnx) for other programs, with a STAC item beside it, and end
# % description: For tiles of tile_size and scores from confidence on; needs the Python package onnx
# % required: no
# % guisection: Model
# %end
# %option
# % key: cluster
# % type: string
# % label: Ray cluster to work on: auto, or host:port of its first node
# % description: Needs the Python package ray; leave empty to work on this machine
# % required: no
# % guisection: Detection
# %end
# %rules
# % required: band1, group, images_directory, export
# % exclusive: band1, group, images_directory, export
# % requires: band2, band1
# % requires: band3, band2
# % requires: -e, images_directory
# % requires: images_format, images_directory
# %end

import os
import sys

import grass.script as gs

PACKAGES = ["numpy", "h5py", "scipy", "rasterio", "shapely", "keras"]


def main():
    options, flags = gs.parser()
    find_library()
    from ann.grass.script import run_script

    run_script(
        "maskrcnn.grass.detect",
        options,
        flags,
        packages=PACKAGES,
        interrupted="Interrupted. No map was written",
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
