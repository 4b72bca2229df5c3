"""Your own configuration keys: files here call ``register_config(key, f)``."""
