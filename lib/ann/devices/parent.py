"""Child processes that end when their parent does, even if that is killed.

Linux sees to it itself, whatever the child is busy with. Elsewhere a thread looks, which a child that is
stuck in a library may never let run. Run as a script, `parent.py PARENT PROGRAM ARGUMENTS` becomes another
program that ends with the process of the id PARENT; so only the standard library is imported.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
LOOK_SECONDS = 1.0


def end_with_parent(parent: int) -> None:
    """Kill this process when its parent, of the process id `parent`, has ended; at once if it has already.

    Linux counts the end of the thread that started this process as the parent's: it must wait for it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def ending_with_this_process(command: Sequence[str]) -> list[str]:
    """The command line that runs `command`, and is killed when this process has ended (on Linux)."""
    if sys.platform != "linux":
        return list(command)
    python = sys.executable or "python3"
    return [python, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), *command]


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
