"""The toolset as `g.extension` installs it, and its build files."""

import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from grass_session import REPOSITORY, open_session

MODULES = (
    "i.ann.maskrcnn.detect",
    "i.ann.maskrcnn.train",
    "i.ann.unet.train",
    "i.ann.unet.predict",
    "i.ann.classifier.train",
    "i.ann.classifier.predict",
)


@pytest.fixture
def user(project, installed, grass_folder):
    """A session with the addon installed; the library is not on PYTHONPATH."""
    session = open_session(project, "PERMANENT", installed, grass_folder)
    session.variables["PYTHONPATH"] = session.variables["PYTHONPATH"].split(":")[-1]
    return session


def test_every_module_of_the_package_is_installed(installed):
    library = REPOSITORY / "lib"
    files = [path for path in library.rglob("*.*") if path.suffix in (".py", ".html")]
    expected = {str(path.relative_to(library)) for path in files}
    target = installed / "etc" / "i.ann.maskrcnn"
    found = [path for path in target.rglob("*.*") if path.is_file() and path.suffix != ".pyc"]
    assert {str(path.relative_to(target)) for path in found} == expected
    assert {
        "ann/errors.py",
        "ann/evaluation/report.html",
        "maskrcnn/grass/detect.py",
        "maskrcnn/network/model.py",
    } <= expected


def test_scripts_and_manuals_are_installed(installed):
    for module in MODULES:
        assert (installed / "scripts" / module).stat().st_mode & 0o111
        manual = (installed / "docs" / "html" / f"{module}.html").read_text()
        assert "DESCRIPTION" in manual and "SYNOPSIS" in manual
    assert "maskrcnn.detect" in (installed / "docs" / "html" / "i.ann.maskrcnn.html").read_text()


@pytest.mark.parametrize("module", MODULES)
def test_the_dialog_has_labels_descriptions_and_tabs_for_all_options(user, module):
    tree = ElementTree.fromstring(user.run(module, "--interface-description").stdout)
    standard = {"overwrite", "help", "verbose", "quiet", "ui"}
    entries = [
        entry for entry in tree if entry.tag in ("parameter", "flag") and entry.get("name") not in standard
    ]
    assert len(entries) > 10
    for entry in entries:
        for part in ("label", "description", "guisection"):
            assert (entry.findtext(part) or "").strip(), f"{entry.get('name')} has no {part}"


def test_detect_knows_the_options_of_old_scripts(user):
    tree = ElementTree.fromstring(user.run("i.ann.maskrcnn.detect", "--interface-description").stdout)
    options = {entry.get("name"): entry for entry in tree.iter("parameter")}
    assert {"band1", "band2", "band3", "images_directory", "images_format", "model", "classes"} <= set(
        options
    )
    assert [name for name, entry in options.items() if entry.get("required") == "yes"] == ["model"]
    assert options["output_type"].findtext("default").strip() == "area"
    assert options["confidence"].findtext("default").strip() == "0.7"
    assert {"e", "overwrite"} <= {entry.get("name") for entry in tree.iter("flag")}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_heavy_is_imported_before_the_options_are_parsed(user, module):
    script = Path(user.variables["GRASS_ADDON_BASE"], "scripts", module).read_text()
    code = script.replace("options, flags = gs.parser()", "print(sorted(sys.modules)); sys.exit()")
    assert code != script
    loaded = user.run("python3", "-c", code).stdout
    assert "grass.script" in loaded
    for heavy in ("numpy", "keras", "tensorflow", "rasterio", "maskrcnn"):
        assert f"'{heavy}'" not in loaded


def test_help_opens_as_fast_as_that_of_another_script(user):
    def fastest(module):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            user.run(module, "--interface-description")
            times.append(time.perf_counter() - start)
        return min(times)

    assert fastest("i.ann.maskrcnn.detect") < fastest("r.fillnulls") + 0.5


def test_a_missing_package_is_named_with_the_command_that_installs_it(user, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'scipy' else find(name, package)\n"
    )
    done = user.run(
        "i.ann.maskrcnn.detect",
        "band1=a",
        "model=m.h5",
        check=False,
        PYTHONPATH=f"{tmp_path}:{user.variables['PYTHONPATH']}",
    )
    assert done.returncode == 1
    assert "scipy" in done.stderr and "pip install scipy" in " ".join(done.stderr.split())


def test_cmake_lists_name_the_same_modules():
    text = (REPOSITORY / "CMakeLists.txt").read_text()
    for folder in ("lib", *MODULES):
        assert folder in text and (REPOSITORY / folder / "CMakeLists.txt").exists()
    for module in MODULES:  # g.extension learns the modules' names from these lines
        assert f"project({module} " in (REPOSITORY / module / "CMakeLists.txt").read_text()


def test_without_grass_make_offers_the_commands_of_development():
    done = subprocess.run(["make", "-n", "lint"], cwd=REPOSITORY, capture_output=True, text=True)
    assert "ruff" in done.stdout, done.stderr
