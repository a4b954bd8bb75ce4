"""How good images are: features, distances between sets of images, nearest neighbours. Knows nothing of diffusion."""
