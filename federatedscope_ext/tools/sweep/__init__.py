"""``python -m federatedscope_ext sweep``: a grid of runs, from the command line to the comparison.

``grid`` says which points there are, ``plan`` where each of them lies and what is left to do,
``check`` whether the runtime accepts it, ``slots`` how many run at a time and where, ``jobs`` runs
them, ``display`` shows it, ``record`` keeps it, and ``command`` is the order of all that.
"""
