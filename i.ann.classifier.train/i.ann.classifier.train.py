#!/usr/bin/env python3

############################################################################
#
# MODULE:     i.ann.classifier.train
# AUTHOR(S):  the i.ann.maskrcnn developers
# PURPOSE:    Train a classifier that tells of which class an image is
# COPYRIGHT:  (C) 2026 by the i.ann.maskrcnn developers
#
#             This program is free software under the GNU General Public
#             License (>=v2). Read the file COPYING that comes with GRASS
#             for details.
#
#############################################################################

# %module
# % description: Trains a classifier, which tells of which class an image is.
# % keyword: imagery
# % keyword: deep learning
# % keyword: ann
# % keyword: classification
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
# % label: Leave 10 % of the images of each class out of the training
# % description: One at least; the best model is tested on them at the end; unused.txt in logs lists them
# % guisection: Data
# %end
# %flag
# % key: i
# % label: Start the backbone from ImageNet weights
# % description: Of efficientnet_lite0 they are a Python package, else downloaded; not for resnet18
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
# % description: Images of rare classes are trained more often
# % guisection: Training
# %end
# %option G_OPT_F_INPUT
# % key: training_dataset
# % label: Directory of the images, a folder for each class, or a table of images (.csv)
# % description: Folders are called as the classes; a table has the columns image and class
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
# % label: Vector maps of labelled areas or points
# % description: An image is what the maps show around or inside of a feature, all areas of a category
# % required: no
# % guisection: Maps
# %end
# %option
# % key: chip_size
# % type: double
# % label: Side of the square around a feature, in map units
# % description: Larger areas are seen as a whole; by default their own size, around points image_size cells
# % required: no
# % guisection: Maps
# %end
# %option
# % key: chip
# % type: string
# % label: What is seen of the square
# % description: All cells around the feature, or those inside of the area alone
# % options: around,inside
# % answer: around
# % required: no
# % guisection: Maps
# %end
# %option G_OPT_DB_COLUMN
# % key: class_column
# % label: Attribute column with the names of the classes
# % description: Of labels or of the table; by default class or label, or the one with such values
# % required: no
# % guisection: Data
# %end
# %option
# % key: class_values
# % type: string
# % label: What other values than names of classes mean, as value:class
# % description: E.g. house:building,school:building, or *:building for all other values; of labels
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
# % description: The model keeps them in this order; by default all folders, sorted
# % required: no
# % multiple: yes
# % guisection: Data
# %end
# %option
# % key: scenes
# % type: string
# % label: What is never divided between training, validation and test
# % description: An image, all of a folder (a flight), all of a square of ground; auto: image, for maps block
# % options: auto,image,folder,block
# % answer: auto
# % required: no
# % guisection: Data
# %end
# %option
# % key: block_size
# % type: double
# % label: Side of the squares of ground of scenes=block, in map units
# % description: By default, for maps, five times that of the chips
# % required: no
# % guisection: Data
# %end
# %option
# % key: validation_share
# % type: double
# % label: Share of the images of each class that validate
# % description: One image of each class at least
# % options: 0-1
# % answer: 0.25
# % required: no
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
# % description: Models are saved as classifier_<name>_<epoch>.h5
# % required: no
# % guisection: Model
# %end
# %option
# % key: backbone
# % type: string
# % label: Network
# % description: efficientnet_lite0 and mobilenetv2 are made for machines without a GPU
# % options: efficientnet_lite0,mobilenetv2,densenet121,inceptionv3,resnet18,resnet50
# % answer: efficientnet_lite0
# % required: no
# % guisection: Model
# %end
# %option
# % key: image_size
# % type: integer
# % label: Side of the square that images are fitted into, in pixels
# % description: A multiple of 32; large images are shrunk to it, small ones enlarged
# % options: 32-2048
# % answer: 224
# % required: no
# % guisection: Data
# %end
# %option
# % key: epochs
# % type: integer
# % label: Number of epochs
# % description: A model is saved after each epoch
# % options: 1-
# % answer: 50
# % required: no
# % guisection: Training
# %end
# %option
# % key: steps_per_epoch
# % type: integer
# % label: Number of optimiser steps per epoch
# % description: Each trains on gpu_count x images_per_gpu images; by default as many as show every image once
# % options: 1-
# % required: no
# % guisection: Training
# %end
# %option
# % key: images_per_gpu
# % type: integer
# % label: Number of images per device and step
# % description: More images train smoother, but need more memory
# % options: 1-
# % answer: 16
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
# % key: precision
# % type: string
# % label: Precision of the calculations
# % description: auto takes bfloat16 where the hardware is made for it, which is faster and needs less memory
# % options: auto,float32,bfloat16
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
# % key: label_smoothing
# % type: double
# % label: Share of the certainty that is taken from the right class
# % description: Makes probabilities more honest; 0 for none
# % options: 0-1
# % answer: 0.1
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
# %rules
# % required: logs,shards
# % required: name,shards
# % exclusive: model,-i
# % required: training_dataset, band1, group
# % exclusive: training_dataset, band1, group
# % requires: band1, labels
# % requires: band2, band1
# % requires: band3, band2
# % requires: group, labels
# % requires: labels, band1, group
# % requires: chip_size, labels
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
        "classifier.grass.train",
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
