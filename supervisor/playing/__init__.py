"""A day of requests in virtual time: what the daemon's own decisions would make of it.

Owns the time and the servers of a play. `scheduling` makes the decisions in it.
"""
