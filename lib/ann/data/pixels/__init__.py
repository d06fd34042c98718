"""Pixels of files, window by window."""
