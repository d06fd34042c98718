"""From labelled images to samples and batches: windows, sizes, augmentation, scaling, order."""
