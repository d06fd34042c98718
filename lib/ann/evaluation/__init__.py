"""The report of a run: tables, charts and pictures, whatever the network. Imports no Keras."""
