"""Work in a GRASS project from tests: mapsets of their own, modules and scripts run as a user's would be."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from warm_python import WarmPython

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class GrassSession:
    """A mapset of a project, as the environment that GRASS modules need. No lock, no start-up."""

    project: Path
    mapset: str
    variables: dict[str, str]

    def run(
        self, module: str, *arguments: str, check: bool = True, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a module; the output is captured. more: environment variables."""
        variables = self.variables | more
        program = self._python_program(module, arguments)
        # what Python does with another PYTHONPATH when it starts has been done there
        if program and "PYTHONPATH" not in more and self._warm(variables).suits(variables):
            done = self._warm(variables).run(program, variables)
        else:
            done = subprocess.run(
                [module, *arguments], env=variables, capture_output=True, text=True, errors="replace"
            )
        if check and done.returncode:
            raise AssertionError(
                f"{module} {arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def _python_program(self, module: str, arguments: Sequence[str]) -> list[str]:
        """What Python runs, if that is one of our modules or code; else nothing."""
        if module == sys.executable:
            return list(arguments)
        script = Path(self.variables["GRASS_ADDON_BASE"], "scripts", module)
        return [str(script), *arguments] if module.startswith("i.ann.") and script.exists() else []

    @staticmethod
    def _warm(variables: dict[str, str]) -> WarmPython:
        return warm_python(variables.get("KERAS_BACKEND"))

    def shell(self, commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run commands as a user types them, up to the first that fails."""
        path = f"{self.programs()}{os.pathsep}{self.variables['PATH']}"
        return subprocess.run(
            ["bash", "-e", "-c", commands],
            cwd=folder,
            env=self.variables | {"PATH": path},
            capture_output=True,
            text=True,
        )

    def programs(self) -> Path:
        """A folder with programs that stand in for our modules, for shells that find them first."""
        programs = self.project.parent / "programs"
        programs.mkdir(exist_ok=True)
        for script in Path(self.variables["GRASS_ADDON_BASE"], "scripts").glob("i.ann.*"):
            self._warm(self.variables).stand_in(programs, script)
        return programs

    def on(self, backend: str) -> GrassSession:
        """The same session with another backend of Keras."""
        return replace(self, variables=self.variables | {"KERAS_BACKEND": backend})

    def out(self, module: str, *arguments: str) -> str:
        """What a module prints."""
        return self.run(module, *arguments).stdout

    def values(self, module: str, *arguments: str) -> dict[str, str]:
        """What a module prints as key=value lines."""
        lines = self.out(module, *arguments).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def python(self, code: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Python code that imports the library of this checkout."""
        return self.run(sys.executable, "-c", code, *arguments, check=check)

    def python_value(self, code: str, *arguments: str):
        """The JSON value that Python code prints last."""
        return json.loads(self.python(code, *arguments).stdout.splitlines()[-1])

    def calc(self, expression: str) -> None:
        """Make a raster map."""
        self.run("r.mapcalc", f"expression={expression}", "--overwrite", "--quiet")

    def maps(self, kind: str = "raster,vector") -> set[str]:
        """Names of the maps of this mapset."""
        return set(self.out("g.list", f"type={kind}", "mapset=.").split())

    def region(self) -> dict[str, str]:
        """The user's region."""
        return self.values("g.region", "-g")

    def rows(self, table_map: str) -> list[dict[str, str]]:
        """The attribute table of a vector map."""
        header, *lines = self.out("v.db.select", f"map={table_map}", "separator=pipe").splitlines()
        return [dict(zip(header.split("|"), line.split("|"), strict=True)) for line in lines]

    def topology(self, vector_map: str) -> dict[str, int]:
        """Counts of areas, centroids, points and so on."""
        return {key: int(value) for key, value in self.values("v.info", "-t", f"map={vector_map}").items()}


@functools.cache
def warm_python(backend: str | None) -> WarmPython:
    """A server for the programs that import Keras with this backend."""
    variables = common_variables() | ({"KERAS_BACKEND": backend} if backend else {})
    if shutil.which("grass"):  # there are tests of training that need none
        gisbase = grass_config("path")
        variables |= {"GISBASE": gisbase, "LD_LIBRARY_PATH": f"{gisbase}/lib"}
        variables["PYTHONPATH"] = grass_config("python_path")
    return WarmPython(variables)


@functools.cache
def grass_config(item: str) -> str:
    """`grass --config`: path, version, python_path."""
    return subprocess.run(
        ["grass", "--config", item], capture_output=True, text=True, check=True
    ).stdout.strip()


def open_session(project: Path, mapset: str, addons: Path, folder: Path) -> GrassSession:
    """A session in a mapset that exists. folder: gets the session's own file."""
    gisbase = grass_config("path")
    gisrc = folder / f"gisrc_{mapset}"
    gisrc.write_text(
        f"GISDBASE: {project.parent}\nLOCATION_NAME: {project.name}\nMAPSET: {mapset}\nGUI: text\n"
    )
    paths = [
        Path(sys.executable).parent,
        *(addons / name for name in ("bin", "scripts")),
        *(Path(gisbase) / name for name in ("bin", "scripts")),
        os.environ["PATH"],
    ]
    return GrassSession(
        project=project,
        mapset=mapset,
        variables=common_variables()
        | {
            "GISBASE": gisbase,
            "GISRC": str(gisrc),
            "GRASS_ADDON_BASE": str(addons),
            "GRASS_PYTHON": sys.executable,
            "LD_LIBRARY_PATH": f"{gisbase}/lib",
            "PATH": os.pathsep.join(map(str, paths)),
            "PYTHONPATH": os.pathsep.join(
                [str(REPOSITORY / "lib"), str(REPOSITORY / "tests"), grass_config("python_path")]
            ),
        },
    )


def common_variables() -> dict[str, str]:
    """The environment of all programs that tests start."""
    # the settings of a session that the tests were started in are not theirs, and what is compiled is kept
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GRASS_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return ours | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}


def create_project(path: Path, coordinate_system: str) -> Path:
    """A new project: "EPSG:..." or "XY"."""
    options = [coordinate_system, "-e"] if coordinate_system != "XY" else ["XY", "-e"]
    subprocess.run(["grass", "-c", *options, str(path)], check=True, capture_output=True)
    return path


def create_mapset(project: Path, name: str) -> None:
    """A new mapset with the project's default region."""
    (project / name).mkdir()
    (project / name / "WIND").write_text((project / "PERMANENT" / "DEFAULT_WIND").read_text())


def export_checkout(folder: Path) -> Path:
    """A copy of the working tree's own files, as a user would download it: no .git, no build results."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source, target = REPOSITORY / name, folder / name
        if source.is_file() and not name.startswith(("tests/", "benchmarks/")):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return folder
