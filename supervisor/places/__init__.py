"""Where model servers run: on this machine, or elsewhere.

Owns how a server is started there, found, recognised, and seen gone. What it is for, and what state
it is in, is the model's own business.
"""
