"""Server rules, one file per method, the maths on top.

Empty on purpose: the methods so far (:mod:`federatedscope_ext.methods`) differ in what clients
train and send, and the server takes the runtime's weighted mean of it. A rule for unequal ranks
belongs here, works on the pairs of :mod:`federatedscope_ext.adapters`, and announces itself with
``register_aggregator``.
"""
