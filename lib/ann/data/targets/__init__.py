"""What samples and batches hold of the labels, a module for each kind of labels."""
