"""The devices that Keras' backend offers, and processes that work together. Knows no data and no network."""
