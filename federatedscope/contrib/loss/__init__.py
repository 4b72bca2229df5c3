"""Your own losses: files here call ``register_criterion(key, f)``."""
