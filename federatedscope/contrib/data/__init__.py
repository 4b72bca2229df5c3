"""Your own data sets: files here call ``register_data(key, f)``."""
