"""The command ``llamadoze``: its options, and what each of its commands prints.

Owns what happens before there is a daemon. The daemon's modules are imported only when they are
needed.
"""
