"""Average precision of boxes and masks, and how images are detected in to be scored."""
