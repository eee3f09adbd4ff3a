"""All models together: who waits for which model, whose turn it is, who must make room.

Owns the queue, the leases' order and the number of sleepers. Knows nothing of how a model sleeps.
"""
