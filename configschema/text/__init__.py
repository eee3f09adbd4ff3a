"""From YAML text to plain data that knows the place of every word.

Owns reading, merging, ``${env.NAME}``, and how problems are collected and shown. It does not know
which keys exist.
"""
