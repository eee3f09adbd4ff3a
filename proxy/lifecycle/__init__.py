"""What tells the daemon to go on, to read its files again, or to end.

Owns signals and reloads, and what comes up before anybody asks. Knows nothing of requests.
"""
