"""The daemon as a whole: its parts put together, begun, and ended in the right order.

Owns the root nursery and a request's way into the application. Knows nothing of the command line's
words.
"""
