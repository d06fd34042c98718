"""Fuzz the reader of checkpoints: damage small valid files at random and read them.

    python tests/fuzz_checkpoints.py [seconds] [first seed]

Reading, all numbers too, must end in tensors or in a ModelFileError; anything else is a bug in our own code.
For speed the file is parsed in this process instead of one with limits. Needs PyTorch to write the files.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import tempfile
import time
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

from ann.errors import ModelFileError
from ann.weights import checkpoint
from ann.weights.checkpoint_contents import contents
from ann.weights.inspection import Refused
from checkpoint_files import TENSORS, values_in
from foreign_weights import write_safetensors


def seeds(folder: Path) -> list[bytes]:
    """A small valid file of each kind."""
    files = []
    for zip_form in (True, False):
        stream = io.BytesIO()
        torch.save(
            {"model": OrderedDict(TENSORS), "epoch": 1}, stream, _use_new_zipfile_serialization=zip_form
        )
        files.append(stream.getvalue())
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.arange(4.0)}
    files += [pickle.dumps({"model": arrays}, protocol) for protocol in (2, 3, 4, 5)]
    write_safetensors(folder / "a.safetensors", {"a": np.float32([[1, 2]]), "b": np.float16([3])})
    return [*files, (folder / "a.safetensors").read_bytes()]


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with a few bytes changed, moved or cut."""
    result = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        place, kind = int(rng.integers(len(result))), rng.integers(0, 5)
        if kind == 0:
            result[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            result[place] = int(rng.choice([0, 1, 127, 128, 255, 0x52, 0x62, 0x63, 0x28, 0x2E]))
        elif kind == 2:
            numbers = (0, 1, 2**31 - 1, 2**31, 2**62, 2**63, 2**64 - 1)
            number = numbers[rng.integers(len(numbers))].to_bytes(8, "little")
            result[place : place + 8] = number
        elif kind == 3:
            source, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
            result[place : place + length] = data[source : source + length]
        elif rng.random() < 0.2:
            del result[place:]
            result = result or bytearray(b"\0")
    return bytes(result)


def inspect_here(path: Path, kind: str) -> dict:
    """What `model_file.inspect` does, in this process."""
    try:
        return json.loads(json.dumps(contents(str(path))))
    except Refused as error:
        raise ModelFileError(str(error)) from error


def attempt(path: Path) -> str:
    """Read a file completely; what came of it in a word. Any error but ModelFileError is a bug."""
    inspect, checkpoint.inspect = checkpoint.inspect, inspect_here
    try:
        values_in(path)
    except ModelFileError:
        return "refused"
    finally:
        checkpoint.inspect = inspect
    return "read"


def main(seconds: float = 60, seed: int = 0) -> int:
    """Run for so many seconds; print what happened; 1 if there was a bug in our own code."""
    results = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, path, end = seeds(folder), folder / "input", time.monotonic() + seconds
        while time.monotonic() < end:
            rng = np.random.default_rng(seed)
            path.write_bytes(damage(files[rng.integers(len(files))], rng))
            started = time.monotonic()
            try:
                result = attempt(path)
            except Exception as error:  # a bug, or what the limits of the process would catch
                result = f"{type(error).__name__}: {str(error)[:80]}"
                if results[result] == 0:
                    print(f"seed {seed}: {result}", flush=True)
            if time.monotonic() - started > 2:
                result += ", slow"
            results[result] += 1
            seed += 1
    for result, count in results.most_common():
        print(f"{count:8} {result}")
    return 0 if set(results) <= {"read", "refused"} else 1


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3])))
