"""From one daemon to the next, and from one configuration: what is left, and what becomes of it.

Owns the state file, what was learned, and what proves that a process is still the one it tells of.
Knows nothing of who runs when.
"""
