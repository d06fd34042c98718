"""What the modules i.ann.unet.train and .predict do with their options."""
