"""HTTP on the wire: connections of clients, connections to model servers, headers, errors.

Owns framing and limits, and every status that a client receives. Knows nothing of models.
"""
