"""Image diffusion in JAX: exact, small, and the same in one line or in a paper."""

__version__ = "0.3.0"
