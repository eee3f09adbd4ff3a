"""A day of requests in virtual time: what the daemon's own decisions would make of it.

Owns the time and the servers of a play. What is decided in it is `scheduling`'s.
"""
