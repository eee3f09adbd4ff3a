"""What is done to models that no request asks for.

Owns pauses, making way for other programs, the limits of what sleeps, and restarts of watched
models. Who runs for whom is `scheduling`'s.
"""
