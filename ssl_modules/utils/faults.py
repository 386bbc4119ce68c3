"""The error that is raised if a storage or the operating system fails."""


class SystemFault(OSError):
    """Raised if a system error, not the file itself, prevents reading.

    The run must then stop. The image must not be left out as if its file were damaged.

    Example:
        >>> SystemFault("images/1.png: can't be read (Input/output error)")
        SystemFault("images/1.png: can't be read (Input/output error)")
    """
