"""Corpora of the built-in miniature: generated from small grammars, one fixed seed each."""
