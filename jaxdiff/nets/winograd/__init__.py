"""3x3 convolutions by the fewest multiplications, for CPUs."""
