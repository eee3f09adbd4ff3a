"""What is done to models without a request for them.

Owns pauses, making way for other programs, the limits of what sleeps, and restarts of watched
models. `scheduling` decides who runs for whom.
"""
