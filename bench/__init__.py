"""bench: compares diffusion samplers by FID against network function evaluations (NFE)."""

__version__ = "0.1.0"
