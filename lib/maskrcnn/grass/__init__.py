"""What the modules i.ann.maskrcnn.train and .detect do with their options."""
