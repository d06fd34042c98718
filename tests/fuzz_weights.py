"""Fuzz the reader of model files: damage small valid files at random and read them.

    python tests/fuzz_weights.py [seconds] [first seed]

Reading must end in a model or a ModelFileError, within seconds and with little memory. For speed the
inspection runs in a forked process instead of a fresh interpreter, under the same limits. Counted, and kept
under tests/corpus/ if new in kind: inputs on which the HDF5 library itself crashes, hangs or asks for too
much memory (the child's death is what the reader turns into an error), and inputs on which our own code
fails (a bug). Not collected by pytest; needs a system with fork.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

from ann.errors import ModelFileError
from ann.weights import inspection, load_weights, model_file, read_training_state, save_model
from maskrcnn.model_file import read_model
from model_files import small_config, small_network, write_legacy

CORPUS = Path(__file__).parent / "corpus"
SECONDS_PER_INPUT = 20


def small_layout():
    """The fewest layers that are a model."""
    wanted = ("input", "conv1", "bn", "res4", "mrcnn_class")
    return [entry for entry in small_network(backbone="resnet18") if entry[0].startswith(wanted)]


def seeds(folder: Path) -> list[bytes]:
    """Small valid files of every kind that the reader knows."""
    layout = small_layout()
    save_model(
        folder / "own.h5",
        layout,
        small_config(backbone="resnet18"),
        {"epoch": 1},
        {"momentum": np.ones(3), "step": np.int64(1)},
    )
    write_legacy(folder / "legacy.h5", layout)
    write_legacy(folder / "model.h5", layout, root="/model_weights")
    write_legacy(folder / "bare.h5", layout, attributes=False)
    with (
        h5py.File(folder / "latest.h5", "w", libver="latest") as file,
        h5py.File(folder / "legacy.h5") as source,
    ):
        for name in source:
            source.copy(name, file)
        file.attrs["layer_names"] = source.attrs["layer_names"]
    return [
        (folder / name).read_bytes() for name in ("own.h5", "legacy.h5", "model.h5", "bare.h5", "latest.h5")
    ]


def weights_bytes(data: bytes, folder: Path) -> np.ndarray:
    """For each byte of a file whether it is no weight: where damage is worth doing."""
    (folder / "seed.h5").write_bytes(data)
    model = read_model(folder / "seed.h5")
    structure = np.ones(len(data), dtype=bool)
    for array in [a for arrays in model.layers.values() for a in arrays] + list(model.training_state):
        structure[array.position : array.position + array.size] = False
    return np.flatnonzero(structure & (np.frombuffer(data, dtype=np.uint8) >= 0))


def damage(data: bytes, places: np.ndarray, rng: np.random.Generator) -> bytes:
    """The file with a few bytes changed, cut, doubled or moved."""
    result = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.choice(places))
        kind = rng.integers(0, 7)
        if kind == 0:
            result[place % len(result)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            result[place % len(result)] = int(rng.choice([0, 1, 2, 127, 128, 254, 255]))
        elif kind == 2:
            width = int(rng.choice([2, 4, 8]))
            number = int(
                rng.choice([0, 1, 2**15, 2**31 - 1, 2**31, 2**62, 2**63, 2**64 - 1, len(data), place])
            )
            result[place : place + width] = (number % 256**width).to_bytes(width, "little")
        elif kind == 3 and rng.random() < 0.2:
            del result[place:]
            result = result or bytearray(b"\0")
        elif kind == 4:
            source, length = int(rng.choice(places)), int(rng.integers(1, 64))
            result[place : place + length] = data[source : source + length]
        elif kind == 5:
            length = int(rng.choice([8, 16]))
            result[place : place + length] = rng.bytes(length)
        else:
            result[place % len(result)] = (result[place % len(result)] + int(rng.choice([1, 255]))) % 256
    return bytes(result)


def send_contents(path: str, connection) -> None:
    """Runs in the child: `inspection.main`, with a pipe instead of the standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    inspection.limit_this_process()
    try:
        connection.send(inspection.contents(path))
    except Exception as error:
        connection.send({"error": f"{type(error).__name__}: {error}"})
    connection.close()


def inspect_in_child(path: Path) -> dict:
    """What `model_file.inspect` does, in a fork of a small server instead of a fresh interpreter."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fuzz_weights"])
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=send_contents, args=(str(path), sending))
    process.start()
    sending.close()
    try:
        table = receiving.recv() if receiving.poll(SECONDS_PER_INPUT) else None
    except EOFError:
        table = None
    if table is None:
        process.join(1)
        process.kill()
    process.join()
    if table is None:
        raise ModelFileError(f"exit status {process.exitcode}")
    if "error" in table:
        raise ModelFileError(table["error"])
    return table


def attempt(path: Path) -> str:
    """Read a file completely; what came of it in a few words. Any error but ModelFileError is a bug."""
    try:
        model = read_model(path)
        load_weights(small_network(seed=1, backbone="resnet18"), model)
        read_training_state(model)
        assert len(model.config.classes) == 2
    except ModelFileError as error:
        text = str(error).replace(str(path), "FILE")
        if "exit status" in text:
            return text
        return "out of memory" if "MemoryError" in text else "refused"
    return "read"


def main(seconds: float = 60, seed: int = 0) -> int:
    """Run for so many seconds; print what happened; 1 if there was a bug in our own code."""
    results, kept, bugs = Counter(), set(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [(data, weights_bytes(data, folder)) for data in seeds(folder)]
        model_file.inspect = inspect_in_child
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rng = np.random.default_rng(seed)
            data = damage(*files[rng.integers(len(files))], rng)
            path = folder / "input.h5"
            path.write_bytes(data)
            started = time.monotonic()
            try:
                result = attempt(path)
            except Exception as error:  # a bug: to be seen, kept, and the run goes on
                result = f"BUG {type(error).__name__}: {str(error)[:120]}"
                bugs += 1
            if time.monotonic() - started > 5:
                result += ", slow"
            results[result] += 1
            if result not in ("read", "refused") and result not in kept:
                kept.add(result)
                CORPUS.mkdir(exist_ok=True)
                label = "".join(letter if letter.isalnum() else "-" for letter in result.lower())[:40]
                (CORPUS / f"{label}-{hashlib.sha1(data).hexdigest()[:8]}.h5").write_bytes(data)
                print(f"seed {seed}: {result}", flush=True)
            seed += 1
    for result, count in results.most_common():
        print(f"{count:8} {result}")
    return 1 if bugs else 0


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3])))
