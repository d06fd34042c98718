"""What any neural network on georeferenced imagery needs, whatever the network. Imports none of them."""
