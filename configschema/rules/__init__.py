"""What must hold across keys: names, addresses, who may run beside whom.

Owns what refuses a file whose every key is right by itself. Knows nothing of how it is read.
"""
