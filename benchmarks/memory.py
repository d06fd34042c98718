"""Memory of i.ann.maskrcnn.detect or i.ann.unet.predict over time, in scenes of one width and other heights.

Run it in GRASS with the addon installed, on maps <name>.red, <name>.green, <name>.blue:

    grass PROJECT/MAPSET --exec python benchmarks/memory.py MODEL PICTURE NAME ... [tile_size=1024 ...]
    grass PROJECT/MAPSET --exec python benchmarks/memory.py MODEL PICTURE NAME ... module=i.ann.unet.predict

Prints a markdown table with the peak of the module itself (reading, network, merging, writing; the GRASS
modules that make vector maps afterwards are processes of their own) and draws memory over time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import grass.script as gs
from matplotlib.figure import Figure
from measuring import markdown

INTERVAL = 0.5  # seconds between two looks


def resident(process_id: int) -> float | None:
    """Memory of a process in MB; None once it has ended."""
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(values[0]) / 1024 if values else None


def measure(module: str, name: str, model: str, options: list[str]) -> tuple[dict, list[tuple[float, float]]]:
    """Run the module on the maps of that name; its own summary, and (seconds, MB) while it ran."""
    gs.run_command("g.region", raster=f"{name}.red")
    bands = [f"band{number}={name}.{colour}" for number, colour in enumerate(("red", "green", "blue"), 1)]
    command = [module, *bands, f"model={model}", f"output={name}_", "format=json", *options]
    process = subprocess.Popen([*command, "--overwrite"], stdout=subprocess.PIPE, text=True)
    started, series = time.monotonic(), []
    while process.poll() is None:
        if (memory := resident(process.pid)) is not None:
            series.append((time.monotonic() - started, memory))
        time.sleep(INTERVAL)
    if process.returncode:
        sys.exit(f"{module} in {name} failed")
    return json.loads(process.stdout.read()), series


def main(arguments: list[str]) -> None:
    options = [argument for argument in arguments if "=" in argument]
    model, picture, *names = (argument for argument in arguments if "=" not in argument)
    module = "i.ann.maskrcnn.detect"
    for option in [one for one in options if one.startswith("module=")]:
        options.remove(option)
        module = option.removeprefix("module=")
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    rows = []
    for name in names:
        summary, series = measure(module, name, model, options)
        (scene,) = summary["scenes"]
        row = {"scene": name, "cells": f"{scene['cells']:,}"}
        if "tiles" in scene:
            row |= {"tiles": scene["tiles"], "objects": scene["instances"]}
            row["network, share of the time"] = f"{scene['seconds_network'] / scene['seconds']:.0%}"
        row["minutes"] = f"{summary['seconds'] / 60:.1f}"
        rows.append(row | {"peak MB": f"{max(memory for _, memory in series):.0f}"})
        axes.plot([second / 60 for second, _ in series], [memory for _, memory in series], label=name)
    print(markdown(tuple(rows[0]), (row.values() for row in rows)))
    axes.set_xlabel("minutes")
    axes.set_ylabel("resident memory, MB")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main(sys.argv[1:])
