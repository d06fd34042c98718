"""Finished maps get their names, all of them or none; maps that they replace are kept until that is certain.

Maps are renamed on the file system, not by g.rename, which copies tables and removes what is in the way
first. Before anything moves, a journal in the mapset says what will. From it the next run puts right what a
process left that was killed in between: before the journal says that all is done everything goes back, from
then on the replaced maps are removed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import grass.script as gs

from ann.errors import AnnError
from ann.grass.external import LINK, external_file, files_beside, link_of, link_to
from ann.grass.modules import interruptions_held
from ann.grass.tables import TableLink, linked_tables, tables_of_all_maps
from ann.grass.temporary import PREFIX, TemporaryMaps, is_abandoned, mapset_folder, unique_name

# Folders of a mapset in which a map has a file or a folder (GRASS's element_list), the decisive one last
ELEMENTS = {
    "vector": ("vector",),
    "raster": ("cellhd", "cats", "colr", "hist", "cell_misc", "fcell", "cell"),
}
JOURNAL = "exchange.json"
KEPT = "old_maskrcnn"  # must not look like a temporary map: the journal alone decides what becomes of it


@dataclass(frozen=True, kw_only=True)
class FinishedMap:
    """A map that is complete but for its name. features: of a vector map, None for a raster map."""

    kind: str
    temporary: str
    name: str
    table: str | None = None
    features: int | None = None


@dataclass(frozen=True, kw_only=True)
class Move:
    """A file or folder to be renamed. inode: what it is recognised by afterwards."""

    source: str
    target: str
    inode: int

    def done(self) -> None:
        if os.path.lexists(self.target):  # rename() would replace a file without asking
            raise FileExistsError(f"{self.target} exists")
        os.rename(self.source, self.target)

    def undone(self) -> bool:
        """Go back, as far as it was done; False if something else has taken the place meanwhile."""
        if not os.path.lexists(self.target) or os.lstat(self.target).st_ino != self.inode:
            return True
        if os.path.lexists(self.source):
            return False
        os.rename(self.target, self.source)
        return True


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """What has to happen to one map. removed: paths that go in the end, and tables with them."""

    map: FinishedMap
    moves: tuple[Move, ...]
    removed: tuple[str, ...]
    tables: tuple[TableLink, ...]


def exists(kind: str, name: str) -> bool:
    """Whether the current mapset has anything of a map."""
    return any(os.path.lexists(mapset_folder() / element / name) for element in ELEMENTS[kind])


def exchange(maps: Sequence[FinishedMap], waiting: Sequence[int]) -> dict[str, str]:
    """Give maps their names; returns why those that can't get theirs don't, by name.

    waiting: filled when the user interrupts, see `interruptions_held`. Then nothing has been done.

    Raises:
        KeyboardInterrupt: interrupted before all maps had their names.
    """
    failures: dict[str, str] = {}
    plans: list[Replacement] = []
    links = None
    for number, one in enumerate(maps):
        there = exists(one.kind, one.name)
        if there and not gs.overwrite():
            failures[one.name] = "a map of this name has been made since the start"
            continue
        if there and one.kind == "vector" and links is None:
            links = tables_of_all_maps(mapset_folder().parent)
        try:
            plans.append(_plan(one, number, links or {}))
        except OSError as error:
            failures[one.name] = str(error)
    journal = mapset_folder() / unique_name(JOURNAL)
    _write(journal, "moving", plans)
    complete = []
    try:
        for plan in plans:
            if waiting:
                raise KeyboardInterrupt
            try:
                for move in plan.moves:
                    move.done()
                complete.append(plan)
            except OSError as error:
                _undo(plan.moves)
                failures[plan.map.name] = str(error)
        if waiting:
            raise KeyboardInterrupt
    except BaseException:
        for plan in reversed(complete):
            _undo(plan.moves)
        journal.unlink()
        raise
    _write(journal, "done", complete)
    _clean(complete)
    journal.unlink()
    return failures


@contextmanager
def names_given(
    maps: Sequence[FinishedMap], temporary: TemporaryMaps
) -> Iterator[tuple[list[FinishedMap], dict[str, str]]]:
    """Give maps their names, see `exchange`; yields those that have got theirs, and why others have not.

    They aren't temporary any more. Interruptions wait until the end of the block, so that it can keep what is
    to be said of one.
    """
    with interruptions_held() as waiting:
        failures = exchange(maps, waiting)
        named = [one for one in maps if one.name not in failures]
        for one in named:
            temporary.finished(one.temporary)
            if one.table is not None:
                temporary.finished(one.table)
        yield named, failures


def describe_failures(failures: Mapping[str, str]) -> str:
    """Maps and why each could not be written."""
    return "; ".join(f"<{name}>: {why}" for name, why in failures.items())


@contextmanager
def interruptions_told(written: Callable[[], Collection[str]]) -> Iterator[None]:
    """Let nobody be told that no map was written if some were. written: names of those that are.

    Raises:
        AnnError: interrupted after maps had been written.
    """
    try:
        yield
    except KeyboardInterrupt:
        if names := written():
            raise AnnError(f"Interrupted after maps had been written: {', '.join(names)}") from None
        raise


def recover() -> list[str]:
    """Put right what killed processes left of an exchange in the current mapset; returns what to tell."""
    messages = []
    for unfinished in mapset_folder().glob(f"{PREFIX}_*_{Path(JOURNAL).stem}.new"):
        if is_abandoned(unfinished.name):
            unfinished.unlink()
    for journal in sorted(mapset_folder().glob(f"{PREFIX}_*_{JOURNAL}")):
        if not is_abandoned(journal.name):
            continue
        state, plans = _read(journal)
        names = ", ".join(f"<{plan.map.name}>" for plan in plans)
        if state == "done":
            _clean(plans)
            messages.append(
                f"A run that was killed had finished {names}; maps that these replaced are removed"
            )
        else:
            stuck = [move for plan in reversed(plans) for move in _undo(plan.moves)]
            messages.append(f"A run was killed while it gave maps their names ({names}): all is as before")
            messages += [f"{move.target} could not go back to {move.source}, which exists" for move in stuck]
        journal.unlink()
    return messages


def _plan(one: FinishedMap, number: int, links: dict[tuple[str, str, str], int]) -> Replacement:
    mapset = mapset_folder()
    kept = unique_name(str(number)).replace(PREFIX, KEPT, 1)
    moves, removed, tables = [], [], []
    old, new = [], []
    for element in ELEMENTS[one.kind]:
        old.append((mapset / element / one.name, mapset / element / kept))
        new.append((mapset / element / one.temporary, mapset / element / one.name))
    if one.kind == "vector":
        tables = [link for link in linked_tables(old[0][0], one.name) if _belongs(link, one.name, links)]
    elif (file := external_file(mapset, one.temporary)) is not None:
        target = _named(file, one.temporary, one.name)
        if external_file(mapset, one.name) == target:
            old += [(path, _named(path, one.name, kept)) for path in files_beside(target, one.name)]
        new += [(path, _named(path, one.temporary, one.name)) for path in files_beside(file, one.temporary)]
        link = link_of(mapset, one.temporary)
        before, after = link.with_name(f"{LINK}_before"), link.with_name(f"{LINK}_after")
        after.write_text(link_to(link.read_text(), target))
        moves += [_move(link, before), _move(after, link)]
        removed.append(mapset / "cell_misc" / one.name / before.name)
    for source, target in reversed(old):
        if os.path.lexists(source):
            moves.append(_move(source, target))
            removed.append(target)
    moves += [_move(source, target) for source, target in new if os.path.lexists(source)]
    return Replacement(map=one, moves=tuple(moves), removed=tuple(map(str, removed)), tables=tuple(tables))


def _belongs(link: TableLink, name: str, links: dict[tuple[str, str, str], int]) -> bool:
    """Whether a table goes with its map: no other map has it, and it does not lie in the map's folder."""
    inside = str(mapset_folder() / "vector" / name) + os.sep
    return links.get(link.key, 0) <= 1 and not link.database.startswith(inside)


def _named(path: Path, name: str, other: str) -> Path:
    return path.with_name(other + path.name[len(name) :])


def _move(source: Path, target: Path) -> Move:
    return Move(source=str(source), target=str(target), inode=os.lstat(source).st_ino)


def _undo(moves: Sequence[Move]) -> list[Move]:
    return [move for move in reversed(moves) if not move.undone()]


def _clean(plans: Iterable[Replacement]) -> None:
    """Remove maps that have been replaced, with their tables."""
    for plan in plans:
        for link in plan.tables:
            if failure := link.drop():
                gs.warning(f"The table <{link.table}> of the replaced map <{plan.map.name}> stays: {failure}")
        for path in plan.removed:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            elif os.path.lexists(path):
                os.unlink(path)


def _write(journal: Path, state: str, plans: Sequence[Replacement]) -> None:
    new = journal.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        json.dump({"state": state, "plans": [asdict(plan) for plan in plans]}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, journal)


def _read(journal: Path) -> tuple[str, list[Replacement]]:
    content = json.loads(journal.read_text(encoding="utf-8"))
    return content["state"], [
        Replacement(
            map=FinishedMap(**plan["map"]),
            moves=tuple(Move(**move) for move in plan["moves"]),
            removed=tuple(plan["removed"]),
            tables=tuple(TableLink(**link) for link in plan["tables"]),
        )
        for plan in content["plans"]
    ]
