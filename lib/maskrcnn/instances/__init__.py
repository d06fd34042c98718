"""Objects: from a tile's detections to instances of the scene, merged across seams."""
