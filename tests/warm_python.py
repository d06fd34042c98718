"""Python programs in processes that begin with Keras and its backend imported, which takes seconds each time.

A server has imported them, and forks for each program. Each is a process of its own, as if it had been
started: with its own arguments, environment, output and exit code; what it does with Keras begins after the
fork. python warm_python.py SOCKET is the server; it ends with whoever started it.
"""

from __future__ import annotations

import atexit
import gc
import importlib.util
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from pathlib import Path

from quick_graphs import skip_graph_optimisation

START_SECONDS = 120
IMPORTED = (  # those that there are
    *("h5py", "PIL.Image", "rasterio", "scipy.ndimage", "shapely", "pyogrio", "pycocotools.mask"),
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "keras", "openvino"),
    *("grass.script", "grass.lib.raster", "grass.lib.vector", "grass.pygrass.raster"),
)
FIXED = ("KERAS_", "OMP_", "LC_", "LANG", "TF_")  # variables that are read when a library is imported


class WarmPython:
    """The server, and a way to run programs through it. variables: of the environment it is started in."""

    def __init__(self, variables: dict[str, str]):
        folder = tempfile.mkdtemp(prefix="warm_")
        self._fixed = _fixed(variables)
        self._socket = os.path.join(folder, "socket")
        self._server = subprocess.Popen(
            [sys.executable, __file__, self._socket], env=variables, stdin=subprocess.PIPE
        )
        atexit.register(self.close)

    def suits(self, variables: dict[str, str]) -> bool:
        """Whether a program with this environment would begin as one that is started does."""
        return _fixed(variables) == self._fixed

    def run(self, arguments: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run [script, ...] or ["-c", code, ...]; the output is captured."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            with connect(self._socket, self._server) as line:
                code = ask(line, arguments, variables, [out.fileno(), errors.fileno()])
            texts = []
            for file in (out, errors):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return subprocess.CompletedProcess(arguments, code, *texts)

    def stand_in(self, folder: Path, script: Path) -> None:
        """Write a program of the script's name that runs it here, for shells that find it first."""
        program = folder / script.name
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import warm_python\n"
        code += f"warm_python.be({self._socket!r}, {str(script)!r})\n"
        program.write_text(f"#!{sys.executable} -S\n{code}")
        program.chmod(0o755)

    def close(self) -> None:
        self._server.stdin.close()
        self._server.kill()
        self._server.wait()
        Path(self._socket).unlink(missing_ok=True)
        os.rmdir(os.path.dirname(self._socket))


def connect(path: str, server: subprocess.Popen | None = None) -> socket.socket:
    """A line to the server, as soon as it listens; an error at once where `server` has ended."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(path)
            return line
        except OSError:
            line.close()
            if time.monotonic() > deadline or (server and server.poll() is not None):
                raise
            time.sleep(0.05)


def ask(line: socket.socket, arguments: list[str], variables: dict[str, str], files: list[int]) -> int:
    """The exit code of a program that writes to two open files."""
    request = {"arguments": arguments, "variables": variables, "folder": os.getcwd()}
    socket.send_fds(line, [json.dumps(request).encode() + b"\n"], files)
    return int(line.makefile().read())


def be(path: str, script: str) -> None:
    """Be the script: it gets this program's arguments, environment and output."""
    with connect(path) as line:
        sys.exit(ask(line, [script, *sys.argv[1:]], dict(os.environ), [1, 2]))


def _fixed(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(FIXED)}


def serve(path: str) -> None:
    for name in IMPORTED:
        if importlib.util.find_spec(name.split(".")[0]):
            importlib.import_module(name)
    gc.freeze()  # what is never looked through for garbage is not copied either
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while sys.stdin not in select.select([server, sys.stdin], [], [])[0]:  # it ends with whoever has the pipe
        line, _ = server.accept()
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(line)
            os._exit(0)
        line.close()


def answer(line: socket.socket) -> None:
    """Run the program that is asked for, and say how it ended."""
    content, files, _, _ = socket.recv_fds(line, 2**20, 2)
    while not content.endswith(b"\n"):
        content += line.recv(2**20)
    request = json.loads(content)
    child = os.fork()
    if child == 0:
        line.close()
        become(files, **request)
    for file in files:
        os.close(file)
    line.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    line.close()


def become(files: list[int], arguments: list[str], variables: dict[str, str], folder: str) -> None:
    """Be the program, to its end."""
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, file in enumerate((nothing, *files)):
            os.dup2(file, number)
        for file in (nothing, *files):
            os.close(file)
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(folder)
        paths = variables.get("PYTHONPATH", "").split(os.pathsep)
        if arguments[0].endswith(".train"):  # what is detected is compared to the last digit
            skip_graph_optimisation()
        inline = arguments[0] == "-c"
        sys.argv = ["-c", *arguments[2:]] if inline else arguments
        first = "" if inline else os.path.dirname(os.path.abspath(arguments[0]))
        sys.path[:] = [first, *filter(None, paths), *sys.path[1:]]
        if inline:
            sys.modules["__main__"] = main = types.ModuleType("__main__")
            exec(compile(arguments[1], "<string>", "exec"), main.__dict__)
        else:
            runpy.run_path(arguments[0], run_name="__main__")
        code = 0
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
