"""Your own models: files here call ``register_model(key, f)``."""
