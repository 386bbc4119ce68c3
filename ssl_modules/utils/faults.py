"""Error of a storage or an operating system, such as a failing disk."""


class SystemFault(OSError):
    """Raised if a system error, not the file itself, prevents reading.

    The run must then stop. The image must not be left out.

    Example:
        >>> SystemFault("images/1.png: can't be read (Input/output error)")
        SystemFault("images/1.png: can't be read (Input/output error)")
    """
