"""What the commands do. Their options import nothing heavy, so that --help answers at once."""
