"""Memory of i.ann.maskrcnn.detect over time, in scenes of the same width and different height.

Run it in GRASS with the addon installed, on maps <name>.red, <name>.green, <name>.blue:

    grass PROJECT/MAPSET --exec python benchmarks/memory.py MODEL PICTURE NAME ... [tile_size=1024 ...]

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

INTERVAL = 0.5  # seconds between two looks


def resident(process_id: int) -> float | None:
    """Memory of a process in MB; None once it has ended."""
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(values[0]) / 1024 if values else None


def measure(name: str, model: str, options: list[str]) -> tuple[dict, list[tuple[float, float]]]:
    """Detect in the maps of that name; the module's own summary, and (seconds, MB) while it ran."""
    gs.run_command("g.region", raster=f"{name}.red")
    bands = [f"band{number}={name}.{colour}" for number, colour in enumerate(("red", "green", "blue"), 1)]
    command = ["i.ann.maskrcnn.detect", *bands, f"model={model}", f"output={name}_", "format=json", *options]
    process = subprocess.Popen([*command, "--overwrite"], stdout=subprocess.PIPE, text=True)
    started, series = time.monotonic(), []
    while process.poll() is None:
        if (memory := resident(process.pid)) is not None:
            series.append((time.monotonic() - started, memory))
        time.sleep(INTERVAL)
    if process.returncode:
        sys.exit(f"Detection in {name} failed")
    return json.loads(process.stdout.read()), series


def main(arguments: list[str]) -> None:
    options = [argument for argument in arguments if "=" in argument]
    model, picture, *names = (argument for argument in arguments if "=" not in argument)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    print("| scene | cells | tiles | objects | minutes | network, share of the time | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        summary, series = measure(name, model, options)
        (scene,) = summary["scenes"]
        peak = max(memory for _, memory in series)
        share = scene["seconds_network"] / scene["seconds"]
        print(
            f"| {name} | {scene['cells']:,} | {scene['tiles']} | {scene['instances']} "
            f"| {summary['seconds'] / 60:.1f} | {share:.0%} | {peak:.0f} |",
            flush=True,
        )
        axes.plot([second / 60 for second, _ in series], [memory for _, memory in series], label=name)
    axes.set_xlabel("minutes")
    axes.set_ylabel("resident memory, MB")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main(sys.argv[1:])
