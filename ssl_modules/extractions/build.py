"""Builds a module's extraction for its encoder."""

from collections.abc import Sequence

from ssl_modules.encoders import Encoder
from ssl_modules.extractions.base import Extraction
from ssl_modules.utils.configurable import copy_of


def build_extraction(extraction: Extraction, encoder: Encoder, sizes: Sequence[int | None]) -> Extraction:
    """Copy an extraction and build its heads for the encoder's maps.

    Args:
        extraction: an :class:`Extraction` without heads.
        encoder: the encoder whose maps the heads take.
        sizes: side of each view, in pixels; None for a view of the same size as the images.

    Returns:
        The copy, with heads.

    Raises:
        TypeError: if ``extraction`` is not an :class:`Extraction`.
        ValueError: if it has heads already, or doesn't fit the maps.
    """
    extraction = copy_of("extraction", extraction, Extraction, "give an object, such as AllViews()")
    if extraction.heads is not None:
        raise ValueError(
            f"extraction: this {type(extraction).__name__} belongs to another module; give each module a new one"
        )
    extraction.build(encoder.out_channels, sizes, encoder.normalised)
    return extraction
