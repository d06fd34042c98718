"""GRASS modules whose messages are wanted, and work that Ctrl-C must not cut in two."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import grass.script as gs
from grass.exceptions import CalledModuleError

from ann.errors import AnnError

HELD_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_apart(
    module: str, *, timeout: float | None = None, env: Mapping[str, str] | None = None, **options
) -> subprocess.CompletedProcess[str]:
    """Run a module out of reach of a Ctrl-C on the terminal; what it prints is in the result, errors too.

    env: its environment, e.g. with a region of its own; None is that of this process.
    timeout: seconds, after which it and its database driver are ended; the return code is negative then.
    """
    process = subprocess.Popen(
        gs.make_command(module, quiet=True, **options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        env=env,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        errors += f"\n{module} did not answer within {timeout:g} seconds"
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """What a module that failed said, as one line; each sentence once."""
    lines = dict.fromkeys(line.strip() for line in done.stderr.splitlines() if line.strip())
    return " ".join(lines) or f"{done.args[0]} ended with exit code {done.returncode}"


@contextmanager
def interruptions_held() -> Iterator[list[int]]:
    """Let Ctrl-C, `kill` and a closed terminal wait until the end of the block; yields those that wait."""
    waiting: list[int] = []
    previous = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in HELD_SIGNALS:
                previous[number] = signal.getsignal(number) or signal.SIG_DFL
                if previous[number] != signal.SIG_IGN:
                    signal.signal(number, lambda received, frame: waiting.append(received))
        yield waiting
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if waiting:
            os.kill(os.getpid(), waiting[0])


@contextmanager
def module_errors() -> Iterator[None]:
    """Make errors of the library of GRASS modules that fail."""
    try:
        yield
    except CalledModuleError as error:
        raise AnnError(failure(error)) from error


def failure(error: Exception) -> str:
    """What to say of an error; what a GRASS module that failed printed stands above it."""
    if not isinstance(error, CalledModuleError):
        return str(error)
    # `cmd` is the name of the module; that of a function of grass.script is part of the message only
    return f"{error.cmd or 'A GRASS module'} failed with exit code {error.returncode}, see the messages above"
