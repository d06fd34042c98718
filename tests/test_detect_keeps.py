"""Whatever exists before detection, in maps, tables and files, is the same afterwards, however it ends."""

import hashlib
import random
import shutil
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
        session.run("db.connect", "-c")
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


# One by one -------------------------------------------------------------------------------------------------


def test_a_table_that_another_map_has_too_stays_when_its_map_is_replaced(scene):
    add_points(scene, "house", "shared")
    add_points(scene, "streets", "shared")
    detect(scene, [["scene"]], ["point"], overwrite=True)
    assert scene.rows("streets") == [{"cat": "1", "owner": "mine"}]
    assert [row["class"] for row in scene.rows("house")] == ["house"]


def test_a_class_whose_table_cannot_be_made_is_reported_and_the_others_are_kept(scene):
    add_table(scene, "mine")
    for number in (1, 2, 3):  # names of indices are not those of tables, but stand in their way
        scene.run("db.execute", f"sql=CREATE INDEX house_{number} ON mine (cat)")
    add_points(scene, "house", "old")
    result = detect(scene, [["scene"]], ["point", "raster"], overwrite=True)
    assert set(result["maps"]) == {"tree", "instances"} and "house_3" in result["failures"]["house"]
    assert scene.rows("house") == [{"cat": "1", "owner": "mine"}]
    assert len(scene.rows("tree")) == 1 and leftovers(scene) == []


def test_a_map_made_while_the_run_was_busy_is_not_replaced(scene):
    code = """
from ann.grass.exchange import FinishedMap, exchange
import json
print(json.dumps(exchange([FinishedMap(kind="raster", temporary="scene", name="there")], [])))
"""
    scene.calc("there = 5")
    before = maps(mapset_folder(scene))
    assert "since the start" in scene.python_value(code)["there"]
    assert maps(mapset_folder(scene)) == before


def test_the_base_of_reclassified_maps_is_not_replaced(scene, tmp_path):
    scene.calc("instances = 5")
    (tmp_path / "rules").write_text("5 = 1\n")
    scene.run("r.reclass", "input=instances", "output=mine", f"rules={tmp_path / 'rules'}")
    done = detect(scene, [["scene"]], ["raster"], overwrite=True, check=False)
    assert done.returncode and f"<mine@{scene.mapset}>" in done.stderr
    assert scene.values("r.univar", "-g", "map=instances")["max"] == "5"


def test_a_map_made_after_a_killed_run_is_kept_beside_the_one_that_run_had_put_aside(scene):
    add_points(scene, "house", "old")
    # renamed are the journal, the old map, the new one, ...
    stop = {"events": 3, "signal_name": "SIGKILL", "kinds": ["os.rename"]}
    detect(scene, [["scene"]], ["point"], overwrite=True, check=False, stop=stop)
    assert "house" not in scene.maps()
    add_points(scene, "house", "new", owner="new")
    detect(scene, [["scene"]], ["point"], prefix="x_")
    assert scene.rows("house") == [{"cat": "1", "owner": "new"}]
    (aside,) = [name for name in scene.maps("vector") if name.startswith("old_")]
    assert scene.rows(aside) == [{"cat": "1", "owner": "mine"}]


@pytest.mark.parametrize("marked", [True, False])
def test_scratch_mapsets_of_killed_runs_go_and_no_others(scene, marked):
    name = scene.python(
        "from ann.grass.temporary import unique_name; print(unique_name('scratch'))"
    ).stdout.strip()
    create_mapset(scene.project, name)
    if marked:
        (scene.project / name / "tmp_maskrcnn_scratch").touch()
    detect(scene, [["scene"]], ["point"])
    assert (scene.project / name).exists() != marked
    if not marked:
        shutil.rmtree(scene.project / name)


# Cells in files outside of the project ----------------------------------------------------------------------


@pytest.fixture
def outside(scene, tmp_path):
    """The folder that r.external.out puts cells in."""
    folder = tmp_path / "outside"
    folder.mkdir()
    scene.run("r.external.out", f"directory={folder}", "format=GTiff", "extension=.tif")
    return folder


def test_external_files_are_called_like_their_maps_and_none_stay_of_dropped_maps(scene, outside):
    for _ in range(2):
        detect(scene, [["scene"]], ["area", "raster", "class"], overwrite=True)
        files = {path.name for path in outside.iterdir() if not path.name.endswith(".xml")}
        assert files == {"instances.tif", "classes.tif"}
        assert scene.values("r.univar", "-g", "map=instances")["n"] == "96"
        assert leftovers(scene) == []
    detect(scene, [["scene"]], ["raster"], check=False, overwrite=True, fail_before_finish=1)
    assert {path.name for path in outside.iterdir() if not path.name.endswith(".xml")} == files


def test_an_external_file_of_somebody_else_is_not_replaced(scene, outside):
    (outside / "instances.tif").write_text("mine")
    done = detect(scene, [["scene"]], ["raster"], check=False, overwrite=True)
    assert done.returncode and "is not that map's" in done.stderr
    assert (outside / "instances.tif").read_text() == "mine"


def test_a_folder_for_external_files_that_is_gone_is_an_error_before_the_work(scene, outside):
    outside.rmdir()
    done = detect(scene, [["scene"]], ["raster"], check=False)
    assert done.returncode and "r.external.out -p" in done.stderr and scene.maps() == {"scene"}
