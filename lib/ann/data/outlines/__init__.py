"""Outlines of objects: masks, polygons, run lengths."""
