"""Warnings about what a file may say, but its author probably did not mean.

Owns the warnings. Nothing here refuses a file, or knows how it was read.
"""
