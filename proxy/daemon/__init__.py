"""The daemon as a whole: it puts the parts together, and starts and ends them in order.

Owns the root nursery and a request's way into the application. It does not know the command line's
options.
"""
