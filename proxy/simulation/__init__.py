"""``llamadoze simulate``: a trace of requests played in virtual time, and the report of that.

Owns traces, sizes and words. The play itself is the supervisor's, with the daemon's own decisions.
"""
