"""A pickle that does something when it is read."""

import os


class Evil:
    """Makes a folder in the working directory."""

    def __reduce__(self):
        return os.mkdir, ("evil_was_here",)
