"""What has happened: who held the memory when and why, which requests there were, what was sampled.

Owns what is kept of it, how long, and where. Telling it to pages and tools as it happens is
`observing`'s, and the routes are the views'.
"""
