"""Rules that span several keys: names, addresses, which models may run together.

Owns what refuses a file in which every single key is right. It does not know how a file is read.
"""
