"""Placeholder, replaced below."""


class UserError(Exception):
    """A mistake the user can mend: one line that names the cause and the cure."""
