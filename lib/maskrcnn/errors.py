"""Errors that a user can mend. The module scripts turn them into `gs.fatal`."""


class MaskRCNNError(ValueError):
    """Root of the library's errors; the message says what is wrong and what to do."""


class DatasetError(MaskRCNNError):
    """Training data that can't be used."""


class ModelFileError(MaskRCNNError):
    """A model file that can't be read or doesn't fit."""


class SceneError(MaskRCNNError):
    """An image or map that can't be detected in."""


class DeviceError(MaskRCNNError):
    """More or other devices asked for than there are."""


class ClusterError(MaskRCNNError):
    """A Ray cluster that can't be reached or can't do the work."""
