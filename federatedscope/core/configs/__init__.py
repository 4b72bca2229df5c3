"""The configuration: every key, its default and meaning, the checks and the refusals."""
