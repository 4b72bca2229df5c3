"""Your own evaluation metrics: files here call ``register_metric(key, f)``."""
