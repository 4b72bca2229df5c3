"""Your own servers and clients of a method: files here call ``register_worker(key, f)``."""
