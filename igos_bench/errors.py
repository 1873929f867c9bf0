"""The errors that are written for people."""


class UserError(Exception):
    """Something that the user can mend: what was asked, what was found, what to do next.

    The command line prints the message as it stands, without a traceback, and exits with code 2.
    """


class ImageError(Exception):
    """One image that cannot be read; it becomes a row with this reason and the run goes on."""
