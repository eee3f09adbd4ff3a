"""``llamadoze simulate``: play a trace of requests in virtual time, and report the result.

Owns traces, sizes and the report. The supervisor plays, with the daemon's own decisions.
"""
