"""Your own optimizers: files here call ``register_optimizer(key, f)``."""
