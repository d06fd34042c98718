"""Errors that a user can mend. The module scripts turn them into `gs.fatal`."""


class AnnError(ValueError):
    """Root of the library's errors; the message says what is wrong and what to do."""


class DatasetError(AnnError):
    """Training data that can't be used."""


class ModelFileError(AnnError):
    """A model file that can't be read or doesn't fit."""


class SceneError(AnnError):
    """An image or map that can't be detected in."""


class DeviceError(AnnError):
    """More or other devices asked for than there are."""


class ClusterError(AnnError):
    """A Ray cluster that can't be reached or can't do the work."""
