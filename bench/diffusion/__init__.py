"""The mathematics of the forward process: schedules, time grids, noise and the denoiser."""
