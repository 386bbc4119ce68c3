"""The error for a storage or an operating system that fails."""


class SystemFault(OSError):
    """Raised if a system error, not the file itself, prevents reading; the run must stop, and no image is left out.

    Example:
        >>> SystemFault("images/1.png: can't be read (Input/output error)")
        SystemFault("images/1.png: can't be read (Input/output error)")
    """
