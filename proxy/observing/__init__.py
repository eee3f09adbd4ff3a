"""What is seen from outside: log, events, metrics, and the rows in which models are shown.

Owns the forms. Knows nothing of the routes that ask for them.
"""
