"""Whatever exists before detection, in maps, tables and files, is the same afterwards, however it ends."""

import hashlib
import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from grass_session import create_mapset, open_session
from test_grass_output import detect, import_image, use_dbf

CLASSES = ("house", "tree")


@pytest.fixture
def scene(session, tmp_path):
    """A session with the small map <scene>, one object of each class."""
    image = np.zeros((20, 30), np.uint8)
    image[2:8, 3:9], image[10:16, 15:25] = 1, 2
    import_image(session, tmp_path, "scene", image)
    session.run("g.region", "raster=scene")
    return session


def neighbour_of(session):
    """A session in another mapset, whose tables go to the same database."""
    create_mapset(session.project, f"{session.mapset}_2")
    gisrc = Path(session.variables["GISRC"])
    neighbour = open_session(
        session.project, f"{session.mapset}_2", Path(session.variables["GRASS_ADDON_BASE"]), gisrc.parent
    )
    connection = session.values("db.connect", "-g")
    path = connection["database"].replace("$GISDBASE/$LOCATION_NAME/$MAPSET", str(mapset_folder(session)))
    neighbour.run("db.connect", f"driver={connection['driver']}", f"database={path}")
    return neighbour


def mapset_folder(session) -> Path:
    return Path(session.project, session.mapset)


def add_points(session, name, table=None, owner="mine"):
    """A vector map of one point; with a table, new or existing, that says whose it is."""
    (session.project.parent / "point.txt").write_text("460010|5549990|1\n")
    session.run(
        "v.in.ascii", "-t", f"input={session.project.parent / 'point.txt'}", f"output={name}", "cat=3"
    )
    if table is not None:
        if table not in session.out("db.tables", "-p").split():
            add_table(session, table, owner)
        session.run("v.db.connect", "-o", f"map={name}", f"table={table}", "--quiet")


def add_table(session, name, owner="mine"):
    session.run("db.connect", "-c")
    session.run("db.execute", f"sql=CREATE TABLE {name} (cat INTEGER, owner VARCHAR(20))")
    session.run("db.execute", f"sql=INSERT INTO {name} VALUES (1, '{owner}')")


def tables(session) -> dict[str, object]:
    """What the tables of the mapset's database hold, by name."""
    if (mapset_folder(session) / "dbf").exists():
        return {path.stem: path.read_bytes() for path in (mapset_folder(session) / "dbf").glob("*.dbf")}
    file = mapset_folder(session) / "sqlite" / "sqlite.db"
    if not file.exists():
        return {}
    with sqlite3.connect(file) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: database.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}


def maps(folder: Path) -> dict[tuple[str, str], str]:
    """Checksums of all files of maps of a mapset, by (vector or raster, name)."""
    elements = {
        "vector": "vector",
        **dict.fromkeys(("cell", "cellhd", "cats", "colr", "hist", "cell_misc"), "raster"),
    }
    digests: dict[tuple[str, str], str] = {}
    for element, kind in elements.items():
        for path in sorted(folder.glob(f"{element}/**/*")):
            if path.is_file():
                key = kind, path.relative_to(folder / element).parts[0]
                content = str(path.relative_to(folder / element)).encode() + path.read_bytes()
                digests[key] = hashlib.sha256(digests.get(key, "").encode() + content).hexdigest()
    return digests


def leftovers(session) -> list[str]:
    """Files and folders that look as if somebody had forgotten them, in the mapset and beside it."""
    paths = [*mapset_folder(session).rglob("*"), *session.project.iterdir()]
    mine = session.mapset.startswith
    return [str(path) for path in paths if "maskrcnn_" in path.name and not mine(path.name)]


# Property: whatever there was ------------------------------------------------------------------------------

ENDINGS = ("finished", "failed", "SIGINT", "SIGTERM", "SIGKILL")


def drawn(seed):
    """What exists beforehand and what happens, drawn at random."""
    draw = random.Random(seed)
    spelled = [str.lower, str.upper, str.title]
    names = [
        draw.choice(spelled)(name + draw.choice(["", "_1", "_2", "_"])) for name in CLASSES for _ in "ab"
    ]
    names = list({name.lower(): name for name in names}.values())
    there = [name for name in (*CLASSES, "streets", "House", "tmp_maskrcnn_mine") if draw.random() < 0.6]
    return {
        "driver": draw.choice(["sqlite", "sqlite", "dbf"]),
        "tables": names,
        "vectors": {name: draw.choice([None, *names]) for name in there},  # tables may be shared
        "rasters": [name for name in ("instances", "classes", "instances_1") if draw.random() < 0.4],
        "neighbours": {name: draw.choice(names) for name in there if draw.random() < 0.3},
        "overwrite": draw.random() < 0.7,
        "ending": ENDINGS[seed % len(ENDINGS)],
        "event": draw.randrange(1, 60),
    }


@pytest.mark.parametrize("seed", range(10))
def test_what_there_was_stays_unless_overwrite_names_it(scene, seed):
    world = drawn(seed)
    if world["driver"] == "dbf":
        use_dbf(scene)
    for number, name in enumerate(world["tables"]):
        add_table(scene, name, f"owner {number}")
    for name, table in world["vectors"].items():
        add_points(scene, name, table)
    neighbour = neighbour_of(scene)
    for name, table in world["neighbours"].items():
        add_points(neighbour, name, table)
    for name in world["rasters"]:
        scene.calc(f"{name} = 7")
    before, tables_before = maps(mapset_folder(scene)), tables(scene)
    neighbours_before = maps(mapset_folder(neighbour))

    outputs = {*(("vector", name) for name in CLASSES), ("raster", "instances")}
    more = {"overwrite": world["overwrite"]}
    if world["ending"] == "failed":
        more["fail_before_finish"] = 1
    elif world["ending"] != "finished":
        more["stop"] = {"events": world["event"], "signal_name": world["ending"]}
    done = detect(scene, [["scene"]], ["point", "raster"], check=False, **more)
    if world["ending"] == "SIGKILL":
        detect(scene, [["scene"]], ["point"], prefix="again_")

    after, tables_after = maps(mapset_folder(scene)), tables(scene)
    written = {key for key in outputs if after.get(key) != before.get(key)}
    assert written in (set(), outputs), done.stderr
    if outputs & before.keys() and not world["overwrite"]:
        assert not written and "Already existing" in done.stderr
    elif world["ending"] == "finished":
        assert written == outputs
    elif world["ending"] == "failed":
        assert not written
    replaced = written & before.keys()
    assert {key: after.get(key) for key in before.keys() - replaced} == {
        key: before[key] for key in before.keys() - replaced
    }
    assert maps(mapset_folder(neighbour)) == neighbours_before
    users = [*world["vectors"].values(), *world["neighbours"].values()]
    named = {world["vectors"][name] for kind, name in replaced if kind == "vector"} - {None}
    gone = {table for table in named if users.count(table) == 1}
    kept = {name: rows for name, rows in tables_before.items() if name not in gone}
    assert {name: tables_after.get(name) for name in kept} == kept
    assert not gone & tables_after.keys()
    again = {("vector", f"again_{name}") for name in CLASSES} & after.keys()
    assert after.keys() - before.keys() - outputs == again
    new_vectors = [name for kind, name in written | again if kind == "vector"]
    assert len(tables_after) == len(kept) + len(new_vectors)
    for name in new_vectors:
        assert len(scene.rows(name)) == 1
    assert [path for path in leftovers(scene) if "tmp_maskrcnn_mine" not in path] == []
