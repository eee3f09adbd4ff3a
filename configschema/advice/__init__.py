"""Warnings: what is allowed in a file but hardly meant.

Owns the warnings. Nothing here refuses a file, or knows how it was read.
"""
