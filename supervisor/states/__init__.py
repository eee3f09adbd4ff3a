"""The life of a model server as facts: its states, how others see it, and what can go wrong.

Owns the table of steps and the one place where a state is written. Knows nothing of processes.
"""
