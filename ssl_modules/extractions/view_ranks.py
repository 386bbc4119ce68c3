"""Check ``view_ranks``, the argument of a queue that ranks the keys of several views."""

from collections.abc import Sequence


def check_view_ranks(view_ranks: Sequence[int], **others: bool) -> None:
    """Raise a ValueError unless ranks start from 1 without gaps, and all ``others`` are False.

    Args:
        view_ranks: ranks of the keys of all views after the first.
        others: values of the arguments that can't be combined with ``view_ranks``, by name.

    Example:
        >>> check_view_ranks((1, 3))
        Traceback (most recent call last):
        ...
        ValueError: view_ranks: expected ranks from 1 without gaps, such as (1, 2, 3), got (1, 3)
    """
    if sorted({*view_ranks}) != list(range(1, max(view_ranks, default=0) + 1)) or not view_ranks:
        raise ValueError(f"view_ranks: expected ranks from 1 without gaps, such as (1, 2, 3), got {view_ranks}")
    if given := [name for name, value in others.items() if value]:
        names = ", ".join(given)
        raise ValueError(f"view_ranks: expected None with {names}, got {view_ranks}; leave out one of the two")


def ranked_views(view_ranks: Sequence[int], views: int) -> range:
    """Return the indices of all views: the anchors' view and one for each rank.

    Args:
        view_ranks: ranks of the keys of all views after the first.
        views: number of views.

    Raises:
        ValueError: if the number of views is not the number of ranks plus 1.

    Example:
        >>> ranked_views((1, 2, 3), 4)
        range(0, 4)
    """
    wanted = 1 + len(view_ranks)
    if views != wanted:
        raise ValueError(
            f"view_ranks: expected a rank for each view after the first, of {views} views, got {view_ranks}; "
            f"use an augmentation of {wanted} views, or other ranks"
        )
    return range(views)
