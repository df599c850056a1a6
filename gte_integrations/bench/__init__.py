"""``gte bench``: how fast this library is on this machine, and what share of the machine that is.

``run`` starts a ``worker`` for each type and round, and makes figures of what they recorded.
"""
