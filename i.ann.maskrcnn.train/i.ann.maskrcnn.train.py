#!/usr/bin/env python3

############################################################################
#
# MODULE:     i.ann.maskrcnn.train
# AUTHOR(S):  Ondrej Pesek (first version), the i.ann.maskrcnn developers
# PURPOSE:    Train a Mask R-CNN on labelled, georeferenced images
# COPYRIGHT:  (C) 2017-2026 by the i.ann.maskrcnn developers
#
#             This program is free software under the GNU General Public
#             License (>=v2). Read the file COPYING that comes with GRASS
#             for details.
#
#############################################################################

# %module
# % description: Trains a Mask R-CNN network on labelled images.
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
# % label: Pretrained weights were trained on other classes, resolution or sizes
# % description: The last layers of the heads, which depend on the classes, are not loaded but trained anew
# % guisection: Model
# %end
# %flag
# % key: s
# % label: Leave 10 % of the images out of the training
# % description: Their list is saved as unused.txt in the logs directory, for a test of the final model
# % guisection: Data
# %end
# %flag
# % key: b
# % label: Train the batch normalisation too
# % description: Not recommended for small batches
# % guisection: Training
# %end
# %flag
# % key: n
# % label: No resizing or padding of images
# % description: All images must be of one size, with sides that are multiples of 64
# % guisection: Data
# %end
# %option G_OPT_M_DIR
# % key: training_dataset
# % label: Directory of the labelled images
# % description: One directory per image: the image and a mask file <image>-<class>-<number>.png per instance
# % required: yes
# % guisection: Data
# %end
# %option G_OPT_F_INPUT
# % key: model
# % label: Model file (.h5) to start from
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
# % label: Directory to write models, losses and learning curve to
# % description: It is created if it does not exist
# % required: yes
# % guisection: Model
# %end
# %option
# % key: name
# % type: string
# % label: Name of the new model
# % description: Models are saved as mask_rcnn_<name>_<epoch>.h5
# % required: yes
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
# % key: rois_per_image
# % type: integer
# % label: Regions of interest trained per image
# % description: How many proposals of each image the class, box and mask heads learn from
# % options: 1-
# % answer: 64
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
# % description: Without any GPU, 1 means the CPU
# % options: 1-
# % answer: 1
# % required: no
# % guisection: Training
# %end
# %option
# % key: mini_mask_size
# % type: integer
# % label: Height and width of mini masks
# % description: Masks shrunk to this size save memory at the expense of precision; leave empty for full masks
# % key_desc: height,width
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
# % key: images_min_dim
# % type: integer
# % label: Shortest side of an image, in pixels
# % description: Smaller images are enlarged to it; a multiple of 64
# % options: 64-
# % answer: 256
# % required: no
# % guisection: Data
# %end
# %option
# % key: images_max_dim
# % type: integer
# % label: Side of the square the network sees, in pixels
# % description: Larger images are trained in pieces of this size, smaller ones are padded; a multiple of 64
# % options: 64-
# % answer: 1280
# % required: no
# % guisection: Data
# %end
# %option
# % key: backbone
# % type: string
# % label: Backbone of the network
# % description: Deeper ones learn more and take longer
# % options: resnet18,resnet50,resnet101
# % answer: resnet101
# % required: no
# % guisection: Model
# %end

import os
import sys
from pathlib import Path

import grass.script as gs
from grass.script.utils import get_lib_path

sys.path.insert(1, get_lib_path(modname="i.ann.maskrcnn", libname="maskrcnn") or "")


class Console:
    """Tells the user about the progress."""

    def message(self, text):
        gs.message(text)

    def percent(self, done, total):
        gs.percent(done, total, 1)


def main():
    options, flags = gs.parser()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        from maskrcnn.errors import MaskRCNNError

        try:
            return train(options, flags)
        except MaskRCNNError as error:
            gs.fatal(str(error))
    except ModuleNotFoundError as error:
        gs.fatal(
            _(
                "The Python package <{name}> is missing. Install what the addon needs into the Python that "
                "GRASS uses: {python} -m pip install {name}"
            ).format(name=error.name, python=sys.executable)
        )


def train(options, flags):
    """Check everything, say what will be done, and do it. Returns the exit status."""
    from maskrcnn.data.split import hold_out, split_dataset

    from maskrcnn.data.formats import open_dataset
    from maskrcnn.training import preparation
    from maskrcnn.training.settings import TrainingSettings
    from maskrcnn.weights import load_weights, read_model

    console = Console()
    model_path = Path(options["model"]) if options["model"] else None
    settings = TrainingSettings(
        name=options["name"],
        logs=Path(options["logs"]),
        epochs=int(options["epochs"]),
        steps_per_epoch=int(options["steps_per_epoch"]),
        validation_steps=int(options["validation_steps"]),
        images_per_device=int(options["images_per_gpu"]),
        device_count=int(options["gpu_count"]),
        staged=model_path is not None,
        train_batch_norm=flags["b"],
    )
    preparation.check_name(settings.name)
    size = preparation.ImageSize(int(options["images_min_dim"]), int(options["images_max_dim"]), flags["n"])
    initial = read_model(model_path) if model_path else None
    epoch = 0 if flags["e"] else preparation.epoch_to_resume(settings, model_path)
    preparation.prepare_logs(settings, overwrite=gs.overwrite(), resuming=epoch > 0)

    console.message(_("Reading the labels of {}...").format(options["training_dataset"]))
    dataset = open_dataset(options["training_dataset"], options["classes"].split(","))
    for note in dataset.notes:
        gs.warning(note)
    if flags["s"]:
        dataset, unused = hold_out(dataset, 0.1, settings.seed)
        unused_list = settings.logs / "unused.txt"
        unused_list.write_text("".join(f"{image.path}\n" for image in unused))
        console.message(_("{} images are left out; their list is in {}").format(len(unused), unused_list))
    training, validation = split_dataset(dataset, 0.25, settings.seed)
    config = preparation.describe_model(
        dataset,
        size,
        backbone=options["backbone"],
        rois_per_image=int(options["rois_per_image"]),
        mini_mask_shape=tuple(map(int, options["mini_mask_size"].split(",")))
        if options["mini_mask_size"]
        else None,
        initial=initial,
        other_classes=flags["e"],
    )
    console.message(preparation.summarise(dataset, training, validation))

    console.message(_("Starting Keras..."))
    import keras

    from maskrcnn.network.layout import legacy_layout
    from maskrcnn.network.model import build_network
    from maskrcnn.network.training import anchor_count
    from maskrcnn.training.devices import list_devices, use_devices
    from maskrcnn.training.loop import train as run

    keras.utils.set_random_seed(settings.seed)
    with use_devices(settings.device_count):
        network = build_network(config)
        console.message(
            _(
                "Model: {backbone}, {weights:,} weights, input {height} x {width} pixels, {bands} bands"
            ).format(
                backbone=config.backbone,
                weights=network.count_params(),
                height=config.image_shape[0],
                width=config.image_shape[1],
                bands=config.bands,
            )
        )
        console.message(
            _("Devices: {devices} (Keras {version} on {backend}), {batch} images per step").format(
                devices=", ".join(list_devices()[: settings.device_count]),
                version=keras.version(),
                backend=keras.backend.backend(),
                batch=settings.batch_size,
            )
        )
        if initial:
            report = load_weights(
                legacy_layout(network),
                read_model(settings.state_path) if epoch else initial,
                skip_heads=flags["e"],
            )
            console.message(_("{path}: {summary}").format(path=model_path, summary=report.summary()))
        if epoch:
            console.message(_("Going on after epoch {}").format(epoch))
        feed = preparation.make_feed(training, validation, config, size, settings, anchor_count(config))
        result = run(network, config, feed, settings, console, first_epoch=epoch + 1)
    if not result.last_epoch:
        gs.warning(_("Interrupted before the first epoch was complete: no model was saved"))
        return 1
    last = settings.model_path(result.last_epoch)
    if result.interrupted:
        gs.warning(
            _("Interrupted. The last model is {path}; model={path} goes on from there").format(path=last)
        )
        return 1
    console.message(
        _("Finished. The last model is {path}, the learning curve {curve}").format(
            path=last, curve=settings.curve_path
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
