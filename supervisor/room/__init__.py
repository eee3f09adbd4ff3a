"""Memory: which devices there are, what is held on each, and who makes room for whom.

Owns the readings from drivers, and the pure choice of who makes room. Knows nothing of process
trees or of how a model sleeps.
"""
