"""A request on its way to a model server, and the answer on its way back.

Owns the wait for the model, the bytes both ways, and the daemon's own requests to model servers.
Knows nothing of the modules that count or show requests.
"""
