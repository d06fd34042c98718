"""What the modules i.ann.classifier.train and .predict do with their options."""
