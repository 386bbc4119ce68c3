"""Builds a module's extraction for its encoder."""

from collections.abc import Sequence
from typing import get_args

from ssl_modules.encoders import Encoder
from ssl_modules.encoders.views import ViewStatistics
from ssl_modules.extractions.base import Extraction
from ssl_modules.utils.checks import check_choice
from ssl_modules.utils.configurable import copy_of


def build_extraction(
    extraction: Extraction, encoder: Encoder, sizes: Sequence[int | None], view_statistics: ViewStatistics
) -> Extraction:
    """Copy an extraction and build its heads for the encoder's maps.

    Args:
        extraction: an :class:`Extraction` without heads.
        encoder: the encoder whose maps the heads take.
        sizes: side of each view, in pixels; None for a view of the same size as the images.
        view_statistics: "joint" or "each", see :class:`~ssl_modules.ContrastiveModule`.

    Returns:
        The copy, with heads.

    Raises:
        TypeError: if ``extraction`` is not an :class:`Extraction`.
        ValueError: if it has heads already, or doesn't fit the maps; if ``view_statistics`` is invalid.
    """
    extraction = copy_of("extraction", extraction, Extraction, "give an object, such as AllViews()")
    if extraction.heads is not None:
        raise ValueError(
            f"extraction: this {type(extraction).__name__} belongs to another module; give each module a new one"
        )
    check_choice("view_statistics", view_statistics, get_args(ViewStatistics))
    extraction.view_statistics = view_statistics
    extraction.view_sizes = tuple(sizes)
    extraction.recurring_ids = encoder.spatial_dims == 3
    extraction.build(encoder.out_channels, sizes, encoder.normalised)
    return extraction
