"""Memory: which devices there are, what is held on each, and who gives up what for whom.

Owns the looks at drivers, and the pure choice of who leaves. Knows nothing of processes' families
or of how a model sleeps.
"""
