"""Train a few steps on two nodes of a cluster; in one of them the worker is killed once, in the middle.

python train_on_cluster.py IMAGES LOGS ADDRESS NAME CHANGES [lose]: changes of the settings as JSON. Prints
what is reported. lose: the images vanish before the training, after they have been looked at.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace
from pathlib import Path

from ann.cluster.connection import connect
from ann.cluster.training import train_on_cluster
from mortal_training import MortalSettings
from train_on_devices import Printer, make_job

if __name__ == "__main__":
    images, logs, address, name, changes, *lose = sys.argv[1:]
    job = make_job(images, logs, name, **json.loads(changes))
    settings = MortalSettings(
        **{field.name: getattr(job.settings, field.name) for field in fields(job.settings)}
    )
    for image in job.dataset.images if lose else ():
        Path(image.path).unlink()
    with connect(address, ["pyarrow"]) as cluster:
        print(train_on_cluster(replace(job, settings=settings), Printer(), cluster), flush=True)
