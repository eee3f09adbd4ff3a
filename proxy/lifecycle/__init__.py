"""What makes the daemon start models early, reload its files, or end.

Owns signals and reloads, and the models that start before any request. It knows no requests.
"""
