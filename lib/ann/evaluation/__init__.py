"""How good a model is: detections against labels, COCO's scores, and the report of a run.

Knows `data` and `detection`, is handed a detector, and imports no Keras.
"""
