"""What is allowed but hardly meant.

Owns the warnings. Nothing here refuses a file, or knows how it was read.
"""
