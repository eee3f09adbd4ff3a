"""From one daemon to the next: what is left of the processes, and what becomes of them.

Owns the state file and what proves that a process is still the one it tells of. Knows nothing of
who runs when.
"""
