"""(what this wing owns, and what it knows nothing of)"""
