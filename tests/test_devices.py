"""Several devices, which are parts of the CPU here: training gives the same weights, detection the same maps.

Each backend is set up in processes of its own, because the number of devices can't change later.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from ann.devices.available import CPU_DEVICES
from ann.training import log
from ann.training.settings import TrainingSettings
from grass_session import create_mapset, open_session, warm_python
from model_files import weights_of

HERE = Path(__file__).parent
BACKENDS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed"),
    )
    for name in ("tensorflow", "jax", "torch")
]
# Sums of other parts in another order: float32 keeps 7 digits, and where a sum is nearly 0 hardly any. Seen
# after 10 steps: 2e-7 on one kind of CPU, 5e-6 on another; the weights themselves move by 1e-4 to 1e-2.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-5}


def environment(backend, devices, **more):
    paths = [HERE, HERE.parent / "lib", HERE.parent / "demo"]
    return {
        **os.environ,
        "KERAS_BACKEND": backend,
        CPU_DEVICES: str(devices),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def command(images, logs, runs):
    """What Python runs to make runs, see `train_on_devices`."""
    logs.mkdir(exist_ok=True)
    return [str(part) for part in (HERE / "train_on_devices.py", images, logs, json.dumps(runs))]


def start(images, logs, runs, variables):
    """The process that makes runs, with its output as text."""
    return subprocess.Popen(
        [sys.executable, *command(images, logs, runs)],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def train(images, logs, runs, variables):
    """What runs print."""
    done = warm_python(variables["KERAS_BACKEND"]).run(command(images, logs, runs), variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_same_weights(path, other):
    expected, received = weights_of(path), weights_of(other)
    assert expected.keys() == received.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, err_msg=name, **TOLERANCE)


@pytest.mark.parametrize(
    ("backend", "network"),
    [
        *(pytest.param(*backend.values, {"TINY": "1"}, marks=backend.marks) for backend in BACKENDS[:2]),
        *(
            pytest.param(*backend.values, {}, marks=[*backend.marks, pytest.mark.slow])
            for backend in BACKENDS[:2]
        ),
        pytest.param(*BACKENDS[2].values, {}, marks=BACKENDS[2].marks),  # which has nothing to compile
    ],
    ids=["tensorflow, tiny", "jax, tiny", "tensorflow", "jax", "torch"],
)
def test_two_devices_with_two_images_each_train_as_one_with_four(images, tmp_path, backend, network):
    changes = {"learning_rate": 0.01, "steps_per_epoch": 4}
    runs = {
        "one": {"images_per_device": 4, **changes},
        "two": {"device_count": 2, "images_per_device": 2, **changes},
    }
    output = train(images, tmp_path, runs, environment(backend, 2, **network))
    assert output.count("4/4") == 2
    one, two = (
        {name: float(value) for name, value in row.items() if "loss" in name}
        for row in (log.read_rows(tmp_path / f"{run}.csv")[0] for run in runs)
    )
    validation = {name for name in one if name.startswith("val_")}
    for name in one.keys() - validation:
        assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), name
    # after the last step weights differ by their rounding, and a proposal at a threshold may be another one
    for name in validation:
        assert two[name] == pytest.approx(one[name], rel=1e-2, abs=1e-6), name
    assert two.keys() == one.keys() and one["val_loss"] > 0
    paths = [tmp_path / f"mask_rcnn_{name}_1.h5" for name in runs]
    assert_same_weights(*paths)
    assert len(list(tmp_path.glob("*.h5"))) == 6  # each run: its model, the best, the state


@pytest.mark.slow
@pytest.mark.parametrize("backend", [one for one in BACKENDS if one.values[0] != "tensorflow"])
def test_processes_that_a_launcher_started_train_as_one_with_two_images(images, tmp_path, backend):
    changes = {"learning_rate": 0.01, "epochs": 1, "steps_per_epoch": 4}
    train(images, tmp_path / "one", {"one": {"images_per_device": 2, **changes}}, environment(backend, 1))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launcher = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = []
    for rank in range(2):
        variables = environment(backend, 2, RANK=str(rank), LOCAL_RANK=str(rank), **launcher)
        if backend == "jax":
            variables[CPU_DEVICES] = "1"
        logs = tmp_path / f"rank_{rank}"
        processes.append(start(images, logs, {"two": {"device_count": 2, **changes}}, variables))
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert_same_weights(tmp_path / "one" / "mask_rcnn_one_1.h5", tmp_path / "rank_0" / "mask_rcnn_two_1.h5")
    one, two = (log.read_rows(tmp_path / path)[0] for path in ("one/one.csv", "rank_0/two.csv"))
    scores = [name for name in one if "AP" in name]  # each process scored a part of the windows
    assert len(scores) > 3
    for name in scores:
        assert float(two[name]) == pytest.approx(float(one[name]), abs=1e-3), name
    assert not list((tmp_path / "rank_1").iterdir())  # only the first process writes, and tells
    assert "4/4" in outputs[0] and "4/4" not in outputs[1]


def children(process):
    """Processes that train for another one, oldest first."""
    numbers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [
        int(number)
        for number in numbers
        if "spawn_main" in Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ")
    ]


def listening(number):
    """Addresses, as the kernel writes them, at which a process waits for connections from a network."""
    sockets = set()
    for file in Path(f"/proc/{number}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(os.readlink(file))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{number}/net/{table}").read_text().splitlines()[1:]:
            address, state, inode = (line.split()[column] for column in (1, 3, 9))
            if state == "0A" and f"socket:[{inode}]" in sockets:
                found.append(address.split(":")[0])
    return found


LOOPBACK = ("0100007F", "00000000000000000000000001000000")  # 127.0.0.1 and ::1


def read_until(process, text):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError("".join(lines))


def assert_nothing_is_left(workers, logs):
    assert not any(Path(f"/proc/{number}").exists() for number in workers)
    assert not list(logs.rglob("*.part")) and not list(logs.rglob(".*.part"))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("backend", [BACKENDS[2]])
def test_processes_end_together(images, tmp_path, backend):
    run = {"run": {"device_count": 2, "epochs": 2, "steps_per_epoch": 150, "validation_steps": 1}}
    in_the_middle = "168/300"  # of an epoch: nothing is being written
    # one is killed: a clear error, and nobody is left
    abroad = {"GLOO_SOCKET_IFNAME": "nowhere0"}  # set for other machines: not for the processes of this one
    variables = environment(backend, 2, TMPDIR=str(tmp_path), TINY="1")
    process = start(images, tmp_path, run, variables | abroad)
    read_until(process, in_the_middle)
    workers = children(process)
    assert len(workers) == 2
    # nobody from outside can take part
    addresses = [address for number in (process.pid, *workers) for address in listening(number)]
    assert set(addresses) <= set(LOOPBACK), addresses
    (folder,) = tmp_path.glob("maskrcnn_*")
    assert folder.stat().st_mode & 0o777 == 0o700
    os.kill(workers[1], signal.SIGKILL)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    assert "was killed (training-1, SIGKILL)" in output
    assert_nothing_is_left(workers, tmp_path)
    assert not folder.exists()

    # it goes on from the first epoch; Ctrl-C, which a terminal sends to all processes, ends it
    process = start(images, tmp_path, run, variables)
    read_until(process, in_the_middle)
    workers = children(process)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=300)[0]
    assert "last_epoch=1" in output and "interrupted=True" in output and "Traceback" not in output
    assert process.returncode == 0
    assert_nothing_is_left(workers, tmp_path)

    # the supervising process is killed: the others see it
    process = start(images, tmp_path, run, variables)
    read_until(process, in_the_middle)
    workers = children(process)
    process.kill()
    process.communicate(timeout=300)
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{number}").exists() for number in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert_nothing_is_left(workers, tmp_path)
    assert not list(tmp_path.glob("maskrcnn_*"))

    # and resumes on one device
    run["run"]["device_count"] = 1
    output = train(images, tmp_path, run, environment(backend, 1, TINY="1"))
    assert "Going on after epoch 1" in output and "last_epoch=2" in output


@pytest.fixture(scope="module")
def scene(project, installed, grass_folder):
    """A session with three bands of 160 x 160 cells, which are nine tiles."""
    create_mapset(project, "devices")
    session = open_session(project, "devices", installed, grass_folder)
    session.run("g.region", "n=160", "s=0", "w=0", "e=160", "res=1")
    session.calc("band = int(127 + 127 * sin(row() * 7) * cos(col() * 11))")
    return session


@pytest.mark.parametrize(
    "backend", [BACKENDS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in ("jax", "torch"))]
)
def test_detections_do_not_depend_on_the_number_of_devices(scene, tiny_model, backend):
    found = []
    for devices in (1, 3):
        variables = {"KERAS_BACKEND": backend, CPU_DEVICES: "3", "CUDA_VISIBLE_DEVICES": ""}
        done = scene.run(
            "i.ann.maskrcnn.detect",
            *("-k", "--overwrite", "band1=band", "band2=band", "band3=band", f"model={tiny_model}"),
            *("confidence=0", "output_type=raster,area", f"gpu_count={devices}"),
            **variables,
        )
        assert ("3 devices" in " ".join(done.stderr.split())) == (devices == 3)
        maps = ("house", "tree")
        cells = scene.out("r.out.ascii", "input=instances")
        found.append((cells, *(scene.out("v.db.select", f"map={name}") for name in maps)))
    assert found[0] == found[1]
    assert len(found[0][1].splitlines()) + len(found[0][2].splitlines()) > 10


def test_more_devices_than_there_are_are_listed(scene, tiny_model):
    bands = ("band1=band", "band2=band", "band3=band", f"model={tiny_model}")
    done = scene.run(
        "i.ann.maskrcnn.detect",
        *bands,
        "--overwrite",
        "gpu_count=3",
        check=False,
        **{CPU_DEVICES: "2", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 1
    assert "gpu_count=3 asks for more devices than there are: 2 (" in " ".join(done.stderr.split())


@pytest.mark.parametrize(("scaling", "rate"), [("none", 0.001), ("sqrt", 0.002), ("linear", 0.004)])
def test_the_learning_rate_grows_as_asked_for(scaling, rate):
    settings = TrainingSettings(
        name="test", logs=Path(), device_count=4, learning_rate=0.001, learning_rate_scaling=scaling
    )
    assert settings.peak_learning_rate == pytest.approx(rate)


@pytest.mark.gpu
def test_all_gpus_train_as_one(images, tmp_path):
    """Needs several GPUs; on GPUs sums differ more from each other than on CPUs."""
    from ann.devices.available import list_devices

    count = len(list_devices())
    if count < 2:
        pytest.skip("there is one GPU")
    rate = {"learning_rate": 0.01}
    runs = {"one": {"images_per_device": count, **rate}, "all": {"device_count": count, **rate}}
    variables = environment(keras.backend.backend(), 1)
    variables.pop("CUDA_VISIBLE_DEVICES")
    train(images, tmp_path, runs, variables)
    expected, received = (weights_of(tmp_path / f"mask_rcnn_{name}_1.h5") for name in runs)
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, rtol=1e-2, atol=1e-3, err_msg=name)
