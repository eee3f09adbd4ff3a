"""What commands ask of a daemon that runs, and how the answers look in a terminal.

Owns finding the daemon, asking it, tables and live frames. It knows the daemon by its HTTP routes
only, and loads none of it: a command answers in a fraction of a second.
"""
