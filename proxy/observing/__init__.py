"""What the daemon shows of itself: log, events, metrics, and the rows that describe models.

Owns their formats. Knows nothing of the routes that return them.
"""
