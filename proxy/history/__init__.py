"""The past: which model used the memory when and why, finished requests, and samples.

Owns what is kept, for how long, and where. `observing` sends it to pages and tools as it happens.
The views own the routes.
"""
