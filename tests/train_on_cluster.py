"""Train a few steps on two nodes of a cluster; in one of them the worker is killed once (`mortal_training`).

python train_on_cluster.py IMAGES LOGS ADDRESS NAME CHANGES [lose]: changes of the settings as JSON. Prints
what is reported. lose: nobody is killed; the images vanish before the training, once they have been
looked at.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace
from pathlib import Path

from ann.cluster.connection import connect
from ann.cluster.training import train_on_cluster
from train_on_devices import Printer, make_job

if __name__ == "__main__":
    images, logs, address, name, changes, *lose = sys.argv[1:]
    job = make_job(images, logs, name, **json.loads(changes))
    if lose:
        for image in job.dataset.images:
            Path(image.path).unlink()
    else:
        from mortal_training import MortalSettings

        values = {field.name: getattr(job.settings, field.name) for field in fields(job.settings)}
        job = replace(job, settings=MortalSettings(**values))
    with connect(address, ["pyarrow"]) as cluster:
        print(train_on_cluster(job, Printer(), cluster), flush=True)
