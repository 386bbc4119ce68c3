"""Building a module's extraction for its encoder."""

from collections.abc import Sequence

from ssl_modules.encoders import Encoder
from ssl_modules.extractions.base import Extraction
from ssl_modules.utils.configurable import copy_of


def build_extraction(extraction: Extraction, encoder: Encoder, sizes: Sequence[int | None]) -> Extraction:
    """Build the extraction of one module: a copy of the object, with heads for the encoder's maps.

    Args:
        extraction: an :class:`Extraction` that isn't built.
        encoder: gives the maps.
        sizes: side of each view, in pixels; None for a view that keeps the images' size.

    Raises:
        TypeError: if it is no extraction.
        ValueError: if it is built already, or doesn't fit the maps.
    """
    extraction = copy_of("extraction", extraction, Extraction)
    if extraction.heads is not None:
        raise ValueError(
            f"extraction: this {type(extraction).__name__} belongs to another module; give each module a new one"
        )
    extraction.build(encoder.out_channels, sizes, encoder.normalised)
    return extraction
