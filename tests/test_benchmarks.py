"""The scaling experiments and studies at the smallest size, and how they see what processes and GPUs use."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import experiments
import gpu
import numpy as np
import overhead
import pytest
import sampler
import scaling
import scaling_run
import studies

from ann.errors import AnnError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = ("--backbone", "resnet18", "--size", "64", "--steps", "1")
# A process whose child keeps 100 MB and has used half a second of processor time when it says so
BUSY_CHILD = """
import sys, time
kept = b"x" * 100_000_000
while time.process_time() < 0.5:
    pass
print("busy", flush=True)
sys.stdin.read()
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY_CHILD!r}])"


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run_program(name, folder, *arguments):
    command = [sys.executable, str(BENCHMARKS / name), *arguments, "--results", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="load is read from /proc")
def test_an_experiment_prints_a_table_and_saves_csv_and_plot(tmp_path):
    arguments = ("--work", "detect", "--images", "1", "2", "--backends", "torch")
    printed = run_program("scaling.py", tmp_path, "images", *arguments, *SMALL)
    rows = read(tmp_path / "images.csv")
    assert tuple(rows[0]) == scaling.COLUMNS
    assert [(row["work"], row["images_per_device"], row["images"]) for row in rows] == [
        ("detect", "1", "1"),
        ("detect", "2", "2"),
    ]
    for row in rows:
        assert all(float(row[name]) > 0 for name in ("seconds_per_image", "cpu_s_per_image", "cpu_load"))
        assert float(row["memory_MB"]) > 200 and not row["note"]
        line = [value for value in row.values() if value]
        assert f"| {' | '.join(line)} |" in printed
    assert (tmp_path / "images.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("program", "more"),
    [
        ("torch", []),
        pytest.param("jax", [], marks=pytest.mark.slow),
        pytest.param("torch", ["--compile"], marks=pytest.mark.slow),
    ],
    ids=["torch", "jax", "torch, compiled"],
)
def test_the_measurements_for_a_gpu_are_rehearsed_without_one(tmp_path, program, more):
    pytest.importorskip(program)
    sizes = ("--size", "64", "--batches", "2", "--steps", "1", "--matrix", "64")
    counts = ("--proposals", "8", "--detections", "4")
    arguments = (*sizes, *counts, "--backbone", "resnet18", "--minutes", "9", *more)
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *arguments, "--programs", program]
    done = subprocess.run(
        [*command, "--csv", str(tmp_path / "gpu.csv")], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read(tmp_path / "gpu.csv")
    assert not any("failed" in row["note"] or "left out" in row["note"] for row in rows), done.stdout
    found = {(row["part"], row["batch"]) for row in rows if row["median_s"] or row["error"]}
    assert found >= {("train", "2"), ("detect", "2"), ("parity", "")}
    assert all(float(row["images_per_s"]) > 0 for row in rows if row["batch"])


def test_what_matters_most_is_measured_first_on_a_gpu():
    called = [row for row, _ in gpu.parts("torch", gpu.parse(["--batches", "1", "4", "8"]))]
    assert [(row["part"], row.get("batch")) for row in called if row["precision"] == "bfloat16"] == [
        ("ceiling", None),
        *[("train", 4), ("train", 1), ("detect", 8), ("detect", 1), ("scene", 4), ("train", 8)],
    ]


@pytest.mark.slow
def test_an_epoch_is_timed_on_devices_and_nodes(tmp_path):
    pytest.importorskip("ray")
    arguments = ("--backends", "torch", "--devices", "2", "--nodes", "2", "--epoch-images", "2")
    run_program("scaling.py", tmp_path, "epoch", *arguments, *SMALL)
    rows = read(tmp_path / "epoch.csv")
    assert [(row["unit"], row["units"], row["images"]) for row in rows] == [
        ("devices", "1", "2"),
        ("devices", "2", "2"),
        ("nodes", "2", "2"),
    ]
    assert all(float(row["epoch_s"]) > 0 and not row["note"] for row in rows)


def test_a_study_scores_the_network_that_it_has_trained(tmp_path):
    arguments = ("--backends", "torch", "--devices", "1", "--images", "2", "--steps", "1")
    run_program("studies.py", tmp_path, "frameworks", *arguments, "--size", "32")
    (row,) = read(tmp_path / "frameworks.csv")
    assert tuple(row) == studies.FRAMEWORKS
    assert (row["units"], row["images_per_device"], row["steps"], row["note"]) == ("1", "2", "2", "")
    assert all(float(row[name]) > 0 for name in ("minutes", "images_per_s", "memory_MB"))
    assert 0 <= float(row["IoU"]) <= float(row["Dice"]) <= 1
    assert (tmp_path / "frameworks.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_workers_of_a_cluster_share_a_step_and_are_scored_after_the_same_time(tmp_path):
    pytest.importorskip("ray")
    arguments = ("--workers", "1", "2", "--images", "2", "--epoch-images", "4", "--minutes", "0.1")
    run_program("studies.py", tmp_path, "scaling", *arguments, "--size", "32")
    rows = read(tmp_path / "scaling.csv")
    assert [(row["unit"], row["units"], row["images_per_device"]) for row in rows] == [
        ("nodes", "1", "2"),
        ("nodes", "2", "1"),
    ]
    for row in rows:
        assert float(row["epoch_s"]) > 0 and int(row["steps"]) > 1 and not row["note"]
        assert 0 <= float(row["IoU"]) <= float(row["Dice"]) <= 1


def test_devices_share_the_images_of_a_step(tmp_path):
    base = scaling_run.Run(work="train", backend="", folder=str(tmp_path), backbone="unet_vgg", size=32)
    run = replace(base, network="unet", batch=4, scored=True)
    scaling_run.prepare(run)
    jobs = [scaling_run.make_job(run, count) for count in (1, 4)]
    assert [job.settings.images_per_device for job in jobs] == [4, 1]
    assert {job.settings.batch_size for job in jobs} == {4}
    assert len(jobs[0].dataset.images) == 3  # the fourth is held out
    with pytest.raises(AnnError, match="4 images per step can't be shared equally among 3 devices"):
        scaling_run.make_job(run, 3)


def test_the_plain_unet_has_the_weights_of_the_modules_one():
    assert overhead.plain_network().count_params() == 10_663_873


@pytest.mark.slow
def test_the_modules_unet_is_timed_beside_plain_keras(tmp_path):
    table = tmp_path / "overhead.csv"
    small = ("--side", "32", "--batch", "1", "--steps", "1", "--tile", "144", "--calls", "1")
    command = [sys.executable, str(BENCHMARKS / "overhead.py"), *small, "--csv", str(table)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read(table)
    assert [(row["work"], row["program"]) for row in rows][:4] == [
        ("train", "plain"),
        ("train", "module"),
        ("predict", "plain"),
        ("predict", "module"),
    ]
    assert all(float(row["median_s"]) > 0 for row in rows)
    assert "module / plain" in done.stdout


def test_the_first_failure_ends_a_series_and_rows_are_kept(tmp_path, monkeypatch, capsys):
    def measure(run):
        row = {"backend": run.backend, "work": run.work, "unit": run.unit, "images_per_device": run.images}
        if run.work == "train" and run.images >= 4:
            return row | {"note": "The memory does not suffice"}
        if run.work == "detect" and run.images == 2:
            raise KeyboardInterrupt
        return row | {"seconds_per_image": 0.5}

    monkeypatch.setattr(experiments, "measure", measure)
    chosen = [
        "images",
        "--backends",
        "tensorflow",
        "--images",
        "1",
        "4",
        "8",
        "2",
        "--results",
        str(tmp_path),
    ]
    base = scaling_run.Run(work="", backend="", backbone="", size=64)
    with pytest.raises(KeyboardInterrupt):
        experiments.carry_out("images", scaling.EXPERIMENTS["images"], scaling.parse(chosen), base)
    rows = read(tmp_path / "images.csv")
    assert [(row["work"], row["images_per_device"], row["note"]) for row in rows] == [
        ("train", "1", ""),
        ("train", "4", "The memory does not suffice"),
        ("detect", "1", ""),
        ("detect", "4", ""),
        ("detect", "8", ""),
    ]
    printed = capsys.readouterr().out
    assert "| tensorflow | train | devices | 4 |  | The memory does not suffice |" in printed
    assert (tmp_path / "images.png").exists()


def test_a_process_that_dies_is_a_row_with_a_note(tmp_path):
    folder = str(tmp_path)
    run = scaling_run.Run(work="train", backend="none", folder=folder, backbone="resnet18", size=64)
    row = experiments.measure(run)
    assert row["backend"] == "none" and row["note"].startswith("failed: ")


def test_too_little_memory_is_a_note(monkeypatch, capsys):
    def train(run):
        raise MemoryError("640 PB asked for")

    monkeypatch.setattr(scaling_run, "train", train)
    scaling_run.main(scaling_run.Run(work="train", backend="", backbone="", size=64))
    result = {"note": "The memory does not suffice: 640 PB asked for"}
    assert capsys.readouterr().out == f"RESULT {json.dumps(result)}\n"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_the_usage_of_a_process_is_that_of_its_descendants_too():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "busy\n"
        seconds, memory = sampler.usage([process.pid])
        process.stdin.close()
    assert 0.45 <= seconds < 5  # the kernel counts whole ticks of a hundredth, for each process
    assert 100 < memory < 300
    assert sampler.usage([process.pid]) == (0, 0)  # it has ended


def test_load_is_that_of_the_measured_part_and_memory_the_peak():
    watched = sampler.Sampler([])
    watched._usage = [(0.0, 0.0, 900.0), (10.0, 5.0, 400.0), (20.0, 25.0, 500.0)]
    watched._gpus = [(when, np.array([[use, 2.0 * use], [0.0, 0.0]])) for when, use in ((9, 10), (15, 80))]
    assert watched.summary(10.0, 20.0, gpus=1) == {
        "cpu_load": 2.0,
        "memory_MB": 900,
        "gpu_use": 80,
        "gpu_MB": 160,
    }
    watched._cores = [(when, np.array([[2 * when, 10 * when], [when, 10 * when]])) for when in (0, 10, 20)]
    assert watched.summary(10.0, 20.0, gpus=0)["core_use"] == "20 10"
    assert watched.summary(10.0, 20.0, gpus=2)["gpu_use"] == 40
    assert "gpu_use" not in watched.summary(10.0, 20.0, gpus=0)


def test_gpus_are_asked_through_nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '45, 1000'\necho '[N/A], 20'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    np.testing.assert_array_equal(sampler.gpu_usage(), [[45, 1000], [np.nan, 20]])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert sampler.gpu_usage().shape == (0, 2)


@pytest.mark.slow
def test_an_imported_model_is_timed_where_there_is_no_torchvision_too(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "imported.py"), "--repeats=1", "--side=64"]
    command += ["--csv", str(tmp_path / "imported.csv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["runtime"]: row for row in read(tmp_path / "imported.csv")}
    assert {"keras", "openvino"} <= set(rows)
    assert all(float(row["cpu_seconds"]) > 0 and int(row["detections"]) > 10 for row in rows.values())
