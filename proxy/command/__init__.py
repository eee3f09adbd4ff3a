"""The command ``llamadoze``: its options, and what each of its commands prints.

Owns what happens before there is a daemon. Imports of the daemon wait until it is wanted.
"""
