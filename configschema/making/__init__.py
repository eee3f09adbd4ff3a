"""Plain data to frozen facts: macros and ports are put in, classes are built.

Owns both steps and the faults of either. Knows nothing of files.
"""
