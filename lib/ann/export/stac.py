"""A STAC item about a model, by the Machine Learning Model extension (MLM) 1.4.

https://github.com/stac-extensions/mlm; the item is of STAC 1.1.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone

from ann.export.exported import Array, Exported

EXTENSION = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"


def stac_item(exported: Exported, file_name: str) -> dict:
    """The item for a model in a file of that name beside it, ready for JSON.

    A model belongs to no place, so it has no geometry; its time is that of the export.
    """
    config = exported.config
    stem = file_name.rpartition(".")[0]
    names = config.band_labels or [f"band_{number}" for number in range(1, config.bands + 1)]
    bands = [{"name": name} for name in names]  # of the asset, as STAC wants, and as MLM wants of the item
    properties = {
        "datetime": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "description": f"{exported.title} for {', '.join(config.classes)}. {exported.image.description}",
        "bands": bands,
        "mlm:name": _name(f"{exported.title} {stem}"),
        "mlm:architecture": f"{exported.title} ({config.backbone})",
        "mlm:tasks": [exported.task],
        "mlm:framework": "ONNX",
        "mlm:total_parameters": exported.parameters,
        "mlm:batch_size_suggestion": 1,
        "mlm:input": [
            {
                "name": exported.image.name,
                "description": exported.image.description,
                "bands": list(names),
                "input": _structure(exported.image),
                "value_scaling": None,  # the graph scales
                "resize_type": None,
            }
        ],
        "mlm:output": [
            {
                "name": array.name,
                "description": array.description,
                "tasks": [exported.task],
                "result": _structure(array),
                "classification:classes": _classes(config.classes) if array.classes else [],
            }
            for array in exported.outputs
        ],
        "mlm:hyperparameters": {
            "band_mean": list(config.band_mean),
            "band_scale": list(config.band_scale),
            "tile_size": list(exported.image.shape[2:]),
            **exported.settings,
        },
    }
    if config.pixel_size:
        properties["gsd"] = config.pixel_size
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [EXTENSION],
        "id": stem,
        "geometry": None,
        "properties": properties,
        "links": [],
        "assets": {
            "model": {
                "href": f"./{file_name}",
                "type": "application/octet-stream; framework=onnx",
                "title": "ONNX file",
                "roles": ["mlm:model"],
                "bands": bands,
                "mlm:artifact_type": "onnx",
            }
        },
    }


def _name(text: str) -> str:
    """A text with the letters that a name may have there; it begins and ends with one or with a digit."""
    return re.sub(r"[^A-Za-z0-9_. -]", "_", text).rstrip("_. -")


def _structure(array: Array) -> dict:
    return {"shape": list(array.shape), "dim_order": list(array.axes), "data_type": array.dtype}


def _classes(names: tuple[str, ...]) -> list[dict]:
    """By class id; 0, the background, is never given."""
    return [
        {
            "value": number,
            "name": re.sub(r"[^0-9A-Za-z_-]", "_", name),
            "title": name,
            "description": name,
        }
        for number, name in enumerate(names, 1)
    ]
