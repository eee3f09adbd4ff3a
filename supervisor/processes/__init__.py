"""Processes of this machine: started, listened to, measured, and ended with all they started.

Owns process groups, pipes, ports and memory. Knows nothing of models' states.
"""
