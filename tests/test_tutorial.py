"""The tutorial: each of its commands runs as it stands (on less data), and the notebook is the same."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nbformat

sys.path.append(str(Path(__file__).parents[1] / "docs"))
import tutorial
from tutorial import DOCS

# What makes the commands quick; everything else is run as it is printed.
SMALLER = {
    r"python3 docs/tutorial.py draw tutorial": (
        "python3 -c \"import sys; sys.path.append('docs'); import pathlib, tutorial; "
        "tutorial.draw(pathlib.Path('tutorial'), 128, 256, 12)\""
    ),
    r"e=e-384": "e=e-64",
    r"w=w\+384": "w=w+64",
    r"-i group=ortho": "group=ortho",
    r"images_max_dim=256 images_min_dim=256": "images_max_dim=64 images_min_dim=64",
    r"epochs=8 steps_per_epoch=50": "epochs=1 steps_per_epoch=1 validation_steps=1",
    r"confidence=0\.5": "confidence=0 tile_size=256",
}


def smaller(command):
    for pattern, other in SMALLER.items():
        command = re.sub(pattern, lambda match, other=other: other, command)
    return command


def test_each_command_runs(installed, grass_folder, session, tmp_path):
    session = session.on("torch")  # which has nothing to compile
    (tmp_path / "docs").symlink_to(DOCS)
    addons = tmp_path / "addons"
    addons.mkdir()
    for path in installed.iterdir():
        (addons / path.name).symlink_to(session.programs() if path.name == "scripts" else path)
    outside = session.variables | {"GRASS_ADDON_BASE": str(addons)}
    for name in ("GISRC", "GISBASE"):
        del outside[name]
    drawn = []

    def picture(part):
        if not drawn:  # one shows that the commands of pictures are right
            tutorial.draw_picture(part, tmp_path, outside, tmp_path / "picture.png")
        drawn.append(part.text)

    tutorial.run_commands(tmp_path, outside, smaller, picture)
    assert (tmp_path / "picture.png").stat().st_size > 5000
    assert drawn and all((DOCS / name).is_file() for name in drawn)
    vectors = {path.name for path in (tmp_path / "tutorial/project/PERMANENT/vector").iterdir()}
    assert {"building", "next", "first_windows", "doubtful", "right", "common", "either"} <= vectors


def test_the_notebook_is_that_of_the_text():
    text = tutorial.NOTEBOOK.read_text(encoding="utf-8")
    expected = tutorial.notebook(tutorial.TEXT.read_text(encoding="utf-8"))
    assert json.loads(text) == expected, "run docs/tutorial.py notebook"
    nbformat.validate(nbformat.reads(text, as_version=4))


def test_the_notebook_has_all_commands_and_pictures():
    cells = tutorial.notebook(tutorial.TEXT.read_text(encoding="utf-8"))["cells"]
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    for cell in code:
        if not cell.startswith("%%bash"):
            compile(cell, "cell", "exec")
    shown = [part for part in tutorial.parts(tutorial.TEXT.read_text(encoding="utf-8")) if part.display]
    assert sum("view.show()" in cell for cell in code) == len(shown) >= 3
    assert sum("i.ann.maskrcnn" in cell for cell in code) == 2
