"""Processes that were started end when the one that started them is killed, whatever they are doing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "lib"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="promised on Linux alone")

SLEEPING_WORKER = """
import ctypes, multiprocessing
from ann.devices.parent import end_with_parent

def work():
    end_with_parent(multiprocessing.parent_process().pid)
    print(multiprocessing.current_process().pid, flush=True)
    ctypes.PyDLL(None).sleep(600)  # as a library that never gives the interpreter back

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
"""
INSPECTION = """
import sys
from pathlib import Path
from ann.weights.model_file import inspect

inspect(Path(sys.argv[1]))  # nobody writes to it
"""
LATE_WORKER = """
import os, sys, time
from ann.devices.parent import end_with_parent

parent = os.getpid()
if os.fork():
    os._exit(0)
time.sleep(1)
end_with_parent(parent)
print("still here")
"""


def start(folder, program, *arguments):
    path = folder / "program.py"
    path.write_text(program)
    return subprocess.Popen(
        [sys.executable, path, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
    )


def children(process):
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [child for number in found for child in (int(number), *children(number))]


def runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_a_worker_stuck_in_a_library_ends_with_its_parent(tmp_path):
    parent = start(tmp_path, SLEEPING_WORKER)
    worker = int(parent.stdout.readline())
    assert runs(worker)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not runs(worker))


def test_the_inspection_of_a_model_file_ends_with_its_parent(tmp_path):
    pipe = tmp_path / "model.h5"
    os.mkfifo(pipe)
    parent = start(tmp_path, INSPECTION, pipe)

    def inspecting():
        return [
            child
            for child in children(parent.pid)
            if f"inspection.py\0{pipe}" in Path(f"/proc/{child}/cmdline").read_text()
            and "parent.py" not in Path(f"/proc/{child}/cmdline").read_text()
        ]

    assert wait_until(inspecting)
    (child,) = inspecting()
    time.sleep(0.5)
    assert runs(child)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not runs(child))


def test_a_worker_whose_parent_is_gone_already_ends_at_once(tmp_path):
    parent = start(tmp_path, LATE_WORKER)
    assert parent.communicate(timeout=30)[0] == ""
