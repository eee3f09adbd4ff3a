"""What keeps the command from doing what it was asked to."""


class CannotRun(Exception):
    """What was asked cannot be done; the text is the one line an operator needs."""
