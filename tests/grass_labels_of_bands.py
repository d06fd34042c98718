"""Code that tests of bands by meaning run in a GRASS session; see `test_band_labels`."""

SOURCES = """
import json, sys
import numpy as np
from ann.errors import AnnError
from ann.grass.sources import find_sources, open_source
from maskrcnn.config import MaskRCNNConfig

request = json.loads(sys.argv[1])
config = MaskRCNNConfig(classes=("a",), band_labels=tuple(request["bands"]))
found = {}
try:
    for name in ("group", "images_directory"):
        options = dict.fromkeys(("band1", "band2", "band3", "group", "images_directory", "images_format"), "")
        if request.get(name):
            sources, _ = find_sources(options | {name: request[name]}, {"e": False}, config)
            for source in sources:
                with open_source(source, None) as (scene, _):
                    pixel = scene.read(0, 0, 1, 1)[0][0, 0].tolist()
                found["all" if name == "group" else source.name] = pixel
except AnnError as error:
    found = {"error": str(error)}
print(json.dumps(found))
"""

TRAINING = """
import json
from ann.grass.labels import open_maps
from ann.training.image_size import ImageSize
from ann.training.preparation import shared_values

names = ("band1", "band2", "band3", "group", "class_column", "training_areas")
found = []
for maps in ({"group": "training"}, {"band1": "red", "band2": "nir"}, {"band1": "red", "band2": "height"}):
    dataset = open_maps(dict.fromkeys(names, "") | {"labels": "labels"} | maps, ["a"])
    values = shared_values(dataset, ImageSize(64, 64, False), "resnet18")
    found.append(values.get("band_labels", ()))
print(json.dumps(found))
"""
