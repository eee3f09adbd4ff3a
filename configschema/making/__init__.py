"""From plain data to frozen objects: macros and ports are inserted, then classes are built.

Owns both steps and their faults. It knows no files.
"""
