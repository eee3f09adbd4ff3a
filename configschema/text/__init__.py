"""YAML text to plain data, and the place of every word in it.

Owns reading, merging and ``${env.NAME}``, and how problems are collected and shown. Knows nothing
of which keys there are.
"""
