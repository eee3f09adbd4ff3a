"""A request on its way to a model server, and the answer on its way back.

Owns the wait for the model, the bytes both ways, and what the daemon itself asks of a model server.
Knows nothing of who counts or shows it.
"""
