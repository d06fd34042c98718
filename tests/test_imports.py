"""Who may know whom: the common part imports no network, and networks don't import each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "lib"
PACKAGES = sorted(path.parent.name for path in LIBRARY.glob("*/__init__.py"))


def imported(path: Path) -> set[str]:
    """Modules of the library that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module}
    return {name for name in found if name.split(".")[0] in PACKAGES}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_itself_and_the_common_part_alone(package):
    strange = {
        f"{path.relative_to(LIBRARY)}: {name}"
        for path in (LIBRARY / package).rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] not in {package, "ann"}
    }
    assert not strange


def at_the_top(path: Path) -> set[str]:
    """Modules that a file imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def test_no_circle_of_imports():
    files = {
        ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__"): path
        for path in LIBRARY.rglob("*.py")
    }
    needs = {name: at_the_top(path) & set(files) - {name} for name, path in files.items()}
    while True:
        free = [name for name, wanted in needs.items() if not wanted]
        if not free:
            break
        for name in free:
            del needs[name]
        needs = {name: wanted - set(free) for name, wanted in needs.items()}
    # a package's face that gathers what its modules offer is imported by them in name only
    faces = {name for name, path in files.items() if path.name == "__init__.py"}
    assert set(needs) <= faces | {name for name in needs if needs[name] & faces}, needs
