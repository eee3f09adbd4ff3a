"""What tells the daemon to go on, to read its files again, or to end.

Owns signals and reloads. Knows nothing of requests.
"""
