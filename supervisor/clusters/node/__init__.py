"""The program that runs beside a model server on a node of a cluster, sent there as text.

Owns what must be done on the node itself. It imports only its own modules.
"""
