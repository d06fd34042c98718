#!/usr/bin/env python3

############################################################################
#
# MODULE:     i.ann.unet.train
# AUTHOR(S):  the i.ann.maskrcnn developers
# PURPOSE:    Train a U-Net that tells the class of each cell
# COPYRIGHT:  (C) 2026 by the i.ann.maskrcnn developers
#
#             This program is free software under the GNU General Public
#             License (>=v2). Read the file COPYING that comes with GRASS
#             for details.
#
#############################################################################

# %module
# % description: Trains a U-Net on images with the class of each cell.
# % keyword: imagery
# % keyword: deep learning
# % keyword: ann
# % keyword: semantic segmentation
# % keyword: classification
# % keyword: raster
# % overwrite: yes
# %end
# %flag
# % key: e
# % label: Pretrained weights were trained on other classes, resolution or sizes
# % description: The last layer, which depends on the classes, is not loaded but trained anew
# % guisection: Model
# %end
# %flag
# % key: s
# % label: Leave a share of the images out of the training, see test_share
# % description: The best model is tested on them at the end; unused.txt in the logs directory lists them
# % guisection: Data
# %end
# %flag
# % key: i
# % label: Start the backbone from ImageNet weights
# % description: For unet_efficientnet_lite0 (a Python package), unet_resnet50 and 101 (downloaded once)
# % guisection: Model
# %end
# %flag
# % key: a
# % label: No augmentation
# % description: Images are trained as they are: not turned, not zoomed, no change of brightness
# % guisection: Training
# %end
# %flag
# % key: c
# % label: Counter class imbalance
# % description: Images and objects of rare classes are trained more often
# % guisection: Training
# %end
# %flag
# % key: d
# % label: Leave out shards that are missing or damaged
# % description: All shards are then read once before the training, to find out
# % guisection: Data
# %end
# %option G_OPT_M_DIR
# % key: training_dataset
# % label: Directory of the labelled images
# % description: Folders images/ and labels/ with rasters of the same names, or labels of objects (manual)
# % required: no
# % guisection: Data
# %end
# %option G_OPT_R_INPUTS
# % key: band1
# % label: Raster map of the first band (red), one for each scene
# % description: Maps instead of image files; their own cells are used, within the computational region
# % required: no
# % guisection: Maps
# %end
# %option G_OPT_R_INPUTS
# % key: band2
# % label: Raster map of the second band (green), one for each scene
# % description: As many maps as band1, in the same order
# % required: no
# % guisection: Maps
# %end
# %option G_OPT_R_INPUTS
# % key: band3
# % label: Raster map of the third band (blue), one for each scene
# % description: As many maps as band1, in the same order
# % required: no
# % guisection: Maps
# %end
# %option G_OPT_I_GROUP
# % key: group
# % label: Imagery group with the bands of one scene
# % description: Any number of bands
# % required: no
# % guisection: Maps
# %end
# %option G_OPT_V_INPUTS
# % key: labels
# % label: Vector maps of the labelled areas
# % description: An area (all areas of a category) is of a class; i.ann.maskrcnn.detect writes such maps
# % required: no
# % guisection: Maps
# %end
# %option G_OPT_V_INPUT
# % key: training_areas
# % label: Vector map of the areas in which everything is labelled
# % description: Only what is inside is trained on; without it, unlabelled ground counts as background
# % required: no
# % guisection: Maps
# %end
# %option G_OPT_DB_COLUMN
# % key: class_column
# % label: Attribute column with the names of the classes
# % description: Of labels, or of vector files; by default class or label, or the one with such values
# % required: no
# % guisection: Data
# %end
# %option
# % key: class_values
# % type: string
# % label: What other values than names of classes mean, as value:class
# % description: E.g. house:building,school:building, or *:building for all other values; COCO categories too
# % key_desc: value:class
# % required: no
# % multiple: yes
# % guisection: Data
# %end
# %option G_OPT_F_INPUT
# % key: model
# % label: Model file to start from (.h5)
# % description: Leave empty to train from scratch
# % required: no
# % guisection: Model
# %end
# %option
# % key: classes
# % type: string
# % label: Names of the classes, separated by commas
# % description: The model keeps them in this order
# % required: yes
# % multiple: yes
# % guisection: Data
# %end
# %option G_OPT_M_DIR
# % key: logs
# % label: Directory to write models, scores and the report to
# % description: It is created if it does not exist
# % required: no
# % guisection: Model
# %end
# %option
# % key: name
# % type: string
# % label: Name of the new model
# % description: Models are saved as unet_<name>_<epoch>.h5
# % required: no
# % guisection: Model
# %end
# %option
# % key: epochs
# % type: integer
# % label: Number of epochs
# % description: A model is saved after each epoch
# % options: 1-
# % answer: 200
# % required: no
# % guisection: Training
# %end
# %option
# % key: steps_per_epoch
# % type: integer
# % label: Number of optimiser steps per epoch
# % description: Each step trains on gpu_count x images_per_gpu images
# % options: 1-
# % answer: 3000
# % required: no
# % guisection: Training
# %end
# %option
# % key: images_per_gpu
# % type: integer
# % label: Number of images per device and step
# % description: More images train smoother, but need more memory
# % options: 1-
# % answer: 1
# % required: no
# % guisection: Training
# %end
# %option
# % key: gpu_count
# % type: integer
# % label: Number of GPUs to use
# % description: Each takes its share of the images of a step; without any GPU, 1 means the CPU
# % options: 1-
# % answer: 1
# % required: no
# % guisection: Training
# %end
# %option
# % key: learning_rate
# % type: double
# % label: Highest learning rate
# % description: It is reached after a warm-up, and falls to a fiftieth of it until the end
# % answer: 0.0005
# % required: no
# % guisection: Training
# %end
# %option
# % key: learning_rate_scaling
# % type: string
# % label: How the learning rate grows with the number of devices
# % description: With n devices, learning_rate is multiplied by 1, by the square root of n or by n
# % options: none,sqrt,linear
# % answer: none
# % required: no
# % guisection: Training
# %end
# %option
# % key: patience
# % type: integer
# % label: Stop after that many epochs without a better model
# % description: 0 for never
# % options: 0-
# % answer: 0
# % required: no
# % guisection: Training
# %end
# %option
# % key: minutes
# % type: double
# % label: Stop after that many minutes
# % description: The epoch that is being trained is cut short, validated and saved; leave empty for no limit
# % required: no
# % guisection: Training
# %end
# %option
# % key: nprocs
# % type: integer
# % label: Threads that read and prepare images
# % description: By default one less than there are cores, from 2 to 16
# % options: 1-
# % required: no
# % guisection: Training
# %end
# %option
# % key: precision
# % type: string
# % label: Precision of the calculations
# % description: auto takes bfloat16 where the hardware is made for it, which is faster and needs less memory
# % options: auto,float32,tf32,bfloat16
# % answer: auto
# % required: no
# % guisection: Training
# %end
# %option
# % key: seed
# % type: integer
# % label: Seed of all random choices
# % description: Which images validate, the order of the others, augmentation, initial weights
# % options: 0-
# % answer: 0
# % required: no
# % guisection: Training
# %end
# %option
# % key: test_share
# % type: double
# % label: Share of the images that -s leaves out, by default 0.1
# % description: Of the others a quarter validates: 0.2 gives 60 % to train, 20 % to validate and 20 % to test
# % required: no
# % guisection: Data
# %end
# %option
# % key: validation_steps
# % type: integer
# % label: Number of validation steps per epoch
# % description: More steps tell more precisely how good the model is; no more are made than there are images
# % options: 0-
# % answer: 100
# % required: no
# % guisection: Training
# %end
# %option
# % key: shards
# % type: string
# % label: Write the training dataset as Parquet shards to this directory or URI, and end
# % description: Shards are a training dataset for many machines; s3://, gs:// and hdfs:// work too
# % required: no
# % guisection: Cluster
# %end
# %option
# % key: cluster
# % type: string
# % label: Ray cluster to work on: auto, or host:port of its first node
# % description: Needs the Python packages ray and pyarrow; leave empty to work on this machine
# % required: no
# % guisection: Cluster
# %end
# %option G_OPT_R_INPUT
# % key: label_raster
# % label: Raster map of the classes, its categories labelled with their names
# % description: Other categories are background, NULL cells are left out
# % required: no
# % guisection: Maps
# %end
# %option
# % key: ignore
# % type: string
# % label: Values of label rasters whose cells are left out, numbers or colours as #RRGGBB
# % description: They count neither in training nor in scores
# % required: no
# % multiple: yes
# % guisection: Data
# %end
# %option
# % key: architecture
# % type: string
# % label: Network
# % description: The plain U-Net, one with the first blocks of VGG16, or one over a ResNet
# % options: unet,unet_vgg,unet_efficientnet_lite0,unet_resnet18,unet_resnet50,unet_resnet101
# % answer: unet_resnet18
# % required: no
# % guisection: Model
# %end
# %option
# % key: loss
# % type: string
# % label: What the training makes small
# % description: Cross entropy, 1 - Dice coefficient, or the sum of both
# % options: cross_entropy,dice,both
# % answer: both
# % required: no
# % guisection: Training
# %end
# %option
# % key: class_weights
# % type: string
# % label: How much the classes count in the cross entropy
# % description: All alike, or rare ones more
# % options: equal,frequency
# % answer: equal
# % required: no
# % guisection: Training
# %end
# %option
# % key: tile_size
# % type: integer
# % label: Side of the windows to train on, in pixels
# % description: A multiple of the network's stride: 8 for unet_vgg, 16 for the others
# % options: 16-8192
# % answer: 256
# % required: no
# % guisection: Data
# %end
# %rules
# % requires: test_share,-s
# % exclusive: model,-i
# % required: logs,shards
# % required: name,shards
# % required: training_dataset, band1, group
# % exclusive: training_dataset, band1, group
# % requires: band1, labels, label_raster
# % requires: band2, band1
# % requires: band3, band2
# % requires: group, labels, label_raster
# % requires: labels, band1, group
# % requires: label_raster, band1, group
# % exclusive: label_raster, labels
# % exclusive: label_raster, training_areas
# % requires: training_areas, labels
# %end

import os
import sys

import grass.script as gs

PACKAGES = ["numpy", "h5py", "scipy", "rasterio", "matplotlib", "jinja2", "pyogrio", "shapely", "keras>=3.14"]


def main():
    options, flags = gs.parser()
    find_library()
    from ann.grass.script import run_script

    run_script(
        "unet.grass.train",
        options,
        flags,
        packages=PACKAGES,
        interrupted="Interrupted before the training began",
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
