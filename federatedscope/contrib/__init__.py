"""A place for additions without a package of their own.

Every Python file in the folders below is imported when a run starts, in alphabetical order. A file
registers what it brings with the functions of :mod:`federatedscope.register`.
"""
