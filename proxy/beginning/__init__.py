"""The first configuration: what is on this machine, and a file that serves it.

Owns ``llamadoze init``. It knows which programs serve which weights, but no daemon.
"""
