"""Scenes of any size: strips -> tiles -> a network -> finished rows, in bounded memory. Knows no GRASS."""
