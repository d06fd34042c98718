"""Labelled images in: readers -> `Example` -> batches of arrays. Knows no network and no GRASS."""
