"""From one daemon to the next, and from one configuration to the next: what is left, what changes.

Owns the state file, what was learned, and the proof that a process is still the one in its record.
Knows nothing of who runs when.
"""
