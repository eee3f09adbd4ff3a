"""Hostile input for a test daemon: how long others wait, what it costs, what the daemon says."""
