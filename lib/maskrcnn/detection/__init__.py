"""Detection in scenes of any size: tiles -> instances -> merged instances, row by row in bounded memory.

Knows no GRASS and no Keras: the network comes as a callable, scenes come through the `Scene` protocol.
"""
