"""The daemon's own routes, beside those that are forwarded.

Owns which path answers with what. What it asks for is done elsewhere.
"""
