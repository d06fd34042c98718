"""Training: schedule, devices, loop, checkpoints, log and learning curve. Knows no GRASS."""
