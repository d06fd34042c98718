"""What belongs to docs/tutorial.md: its data, its pictures, and the same as a Jupyter notebook.

usage: tutorial.py draw FOLDER    draw the town that is mapped: ortho.tif, labels.gpkg and truth.gpkg
       tutorial.py pictures       run all commands as they stand, in a new folder, and draw the pictures
       tutorial.py notebook       write docs/tutorial.ipynb from docs/tutorial.md
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent
TEXT, NOTEBOOK = DOCS / "tutorial.md", DOCS / "tutorial.ipynb"
HEIGHT, WIDTH, OBJECTS = 1024, 1536, 220
SEED = 3
BEFORE_GRASS = 2  # so many of the first blocks of commands are typed outside of GRASS


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the text. kind: text, commands or picture; display: the commands that draw the picture.

    text of a picture: its file, empty where only the notebook has it.
    """

    kind: str
    text: str
    display: tuple[str, ...] = ()


def parts(text: str) -> Iterator[Part]:
    """The parts of the tutorial in their order."""
    pattern = (
        r"```sh\n(?P<commands>.*?)```\n|"
        r"(?:!\[[^]]*\]\((?P<picture>[^)]*)\)\n)?<!-- (?P<display>d\..*?) -->\n"
    )
    end = 0
    for match in re.finditer(pattern, text, flags=re.S):
        if before := text[end : match.start()].strip():
            yield Part(kind="text", text=before)
        end = match.end()
        if match["commands"]:
            yield Part(kind="commands", text=match["commands"].strip())
        else:
            display = tuple(command.strip() for command in match["display"].split(";"))
            yield Part(kind="picture", text=match["picture"] or "", display=display)
    if rest := text[end:].strip():
        yield Part(kind="text", text=rest)


def draw(folder: Path, height: int = HEIGHT, width: int = WIDTH, objects: int = OBJECTS) -> None:
    """Draw the town, whose western half is labelled."""
    sys.path[:0] = [str(DOCS.parent / "demo")]
    import numpy as np
    import pyogrio
    import rasterio
    import shapely
    from rasterio import features

    from drawing import CRS, draw_scene, write_geotiff

    scene = draw_scene(height=height, width=width, objects=objects, seed=SEED)
    folder.mkdir(parents=True, exist_ok=True)
    write_geotiff(folder / "ortho.tif", scene.image)
    with rasterio.open(folder / "ortho.tif") as image:
        transform = image.transform
    buildings = [number for number, name in enumerate(scene.class_names, 1) if name == "building"]
    labels = np.where(np.isin(scene.labels, buildings), scene.labels, 0).astype(np.int32)
    shapes = features.shapes(labels, mask=labels > 0, transform=transform)
    outlines = np.array([shapely.geometry.shape(shape) for shape, _ in shapes])
    middle = transform.c + transform.a * width / 2
    west = np.array([outline.bounds[0] < middle for outline in outlines])
    for name, chosen in (("labels", west), ("truth", np.ones(len(outlines), bool))):
        pyogrio.raw.write(
            folder / f"{name}.gpkg",
            geometry=shapely.to_wkb(outlines[chosen]),
            field_data=[np.array(["building"] * chosen.sum(), dtype=object)],
            fields=["class"],
            geometry_type="Polygon",
            crs=CRS,
        )


def run_commands(
    folder: Path, environment: dict[str, str], change: Callable[[str], str], picture: Callable[[Part], None]
) -> None:
    """Run all commands in a folder, those for GRASS in the project that they make, and hand on pictures.

    change: makes another command of one, for example a quicker one.
    """
    blocks = 0
    for part in parts(TEXT.read_text(encoding="utf-8")):
        if part.kind == "commands":
            command = change(part.text)
            in_bash = ["bash", "-e", "-o", "pipefail", "-c", command]
            if blocks >= BEFORE_GRASS:
                in_bash = ["grass", str(folder / "tutorial/project/PERMANENT"), "--exec", *in_bash]
            blocks += 1
            print(f"$ {command}", flush=True)
            subprocess.run(in_bash, cwd=folder, env=environment, check=True)
        elif part.kind == "picture" and part.text:
            picture(part)


def draw_picture(part: Part, folder: Path, environment: dict[str, str], target: Path) -> None:
    """A picture of maps as GRASS displays them."""
    screen = {
        "GRASS_RENDER_IMMEDIATE": "cairo",
        "GRASS_RENDER_FILE": str(target),
        "GRASS_RENDER_FILE_READ": "TRUE",
        "GRASS_RENDER_WIDTH": "768",
        "GRASS_RENDER_HEIGHT": "512",
    }
    target.unlink(missing_ok=True)
    for command in ("g.region raster=ortho.red", *part.display):
        project = str(folder / "tutorial/project/PERMANENT")
        words = ["grass", project, "--exec", *command.split()]
        subprocess.run(words, cwd=folder, env=environment | screen, check=True)


def notebook(text: str) -> dict:
    """The tutorial as a notebook: commands are cells of bash, pictures maps of grass.jupyter."""
    cells: list[dict] = []

    def add(kind: str, source: str) -> None:
        cell = {"cell_type": kind, "id": f"part-{len(cells)}", "metadata": {}, "source": source}
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))

    blocks = 0
    for part in parts(text):
        if part.kind == "text":
            add("markdown", part.text)
        elif part.kind == "commands":
            add("code", f"%%bash\n{part.text}")
            blocks += 1
            if blocks == BEFORE_GRASS:
                add("code", SESSION)
        else:
            calls = "".join(f"{map_call(command)}\n" for command in part.display)
            add("code", f"view = gj.Map(width=720)\n{calls}view.show()")
    return {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


SESSION = """\
import subprocess
import sys

sys.path.append(subprocess.check_output(["grass", "--config", "python_path"], text=True).strip())

import grass.jupyter as gj

session = gj.init("tutorial/project/PERMANENT")"""


def map_call(command: str) -> str:
    """A display command as a call of grass.jupyter's Map: d.vect map=a as view.d_vect(map="a")."""
    module, *options = command.split()
    arguments = ", ".join(f'{name}="{value}"' for name, value in (one.split("=", 1) for one in options))
    return f"view.{module.replace('.', '_')}({arguments})"


def main() -> None:
    if sys.argv[1:2] == ["draw"] and len(sys.argv) == 3:
        draw(Path(sys.argv[2]))
    elif sys.argv[1:] == ["pictures"]:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "docs").symlink_to(DOCS)
            environment = dict(os.environ)

            def picture(part: Part) -> None:
                draw_picture(part, Path(folder), environment, DOCS / part.text)

            run_commands(Path(folder), environment, lambda command: command, picture)
    elif sys.argv[1:] == ["notebook"]:
        text = json.dumps(notebook(TEXT.read_text(encoding="utf-8")), indent=1) + "\n"
        NOTEBOOK.write_text(text, encoding="utf-8")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
