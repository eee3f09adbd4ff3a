"""Faults of sleep, of processes and of the machine, each caused on purpose."""
