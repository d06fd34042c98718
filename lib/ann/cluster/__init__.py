"""Work on many machines through a Ray cluster: shards, detection, training. Knows no GRASS.

The library itself is sent to the nodes; they need the packages of requirements.txt and
requirements-cluster.txt in the same versions. Ray is imported only when a cluster is asked for.
"""
