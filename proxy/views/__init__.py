"""The daemon's own routes, as opposed to routes that it forwards.

Owns which path answers with what. Other parts do the work.
"""
