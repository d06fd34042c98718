"""Labelled images in, a module for each format; `formats` finds out which one it is."""
