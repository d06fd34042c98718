"""The U-Nets in Keras: how they are built, their losses, and the network in training."""
