"""Processes of this machine: started, read, measured, and ended with everything they started.

Owns process groups, pipes, ports and memory. Knows nothing of models' states.
"""
