"""Where model servers run: on this machine, or elsewhere.

Owns how a server is started there, found, recognised, and seen gone. The model decides what the
server is for and what state it is in.
"""
