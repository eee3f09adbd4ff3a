"""Requests of the commands to a running daemon, and their answers in a terminal.

Owns finding the daemon, requests, tables and live frames. It knows the daemon by its HTTP routes
only, and imports none of it, so that a command answers in a fraction of a second.
"""
