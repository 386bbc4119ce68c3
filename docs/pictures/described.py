"""Describe what the picture of each method shows."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Side:
    """The labels of the rows or columns of a matrix: the image and the kind of each anchor or candidate."""

    images: list[int]
    kinds: list[str]

    @classmethod
    def of(cls, *groups: tuple[list[int], str]) -> "Side":
        return cls([i for images, _ in groups for i in images], [kind for images, kind in groups for _ in images])


@dataclass
class Picture:
    """What the picture of a method shows.

    Args:
        name: of the class in ``ssl_modules.methods``.
        views: one word for each view.
        teacher: indices of the views that the teacher encodes.
        student: indices of the views that the student encodes.
        stages: names of the student's networks after the encoder.
        extraction: changes to the arguments of the default extraction, to keep the picture small.
        maps: channels and sides of the encoder's maps.
        images: number of images.
        queue: ids of the keys in the queue.
        ids: ids of the images.
        sides: labels of anchors and candidates.
        notes: lines under the loss.
        soft: what the legend calls the dots, if targets are soft.
        gray: what the legend calls the gray shapes.
        patches: rows and columns of a grid of patches.
        contrasts: a note on the contrasts that are not drawn.
    """

    name: str
    views: list[str]
    sides: tuple[Side, Side]
    teacher: tuple[int, ...] = ()
    student: tuple[int, ...] = (0, 1)
    stages: tuple[str, ...] = ("projector",)
    extraction: dict[str, Any] = field(default_factory=dict)
    maps: tuple[tuple[int, ...], ...] = ((8, 1, 1),)
    images: int = 3
    queue: list[list[int]] | None = None
    ids: list[list[int]] | None = None
    notes: tuple[str, ...] = ()
    soft: str = ""
    gray: str = ""
    patches: tuple[int, int] | None = None
    contrasts: str = ""
    aspects: dict[str, str] = field(default_factory=dict)


THREE = [0, 1, 2]
FOUR_OLD = [3, 3, 3, 3]
PICTURES = [
    Picture(
        "SimCLR",
        ["view 1", "view 2"],
        (Side.of((THREE * 2, "student")), Side.of((THREE * 2, "student"))),
        notes=("mean over anchors of", "-log softmax", "at the positive"),
    ),
    Picture(
        "MoCo",
        ["key", "query"],
        (Side.of((THREE, "student")), Side.of((THREE, "teacher"), (FOUR_OLD, "old"))),
        teacher=(0,),
        student=(1,),
        extraction={"size": 4},
        queue=[[7], [8], [9], [10]],
        notes=("mean over queries of", "-log softmax", "at the positive"),
    ),
    Picture(
        "BYOL",
        ["view 1", "view 2"],
        (Side.of((THREE, "student")), Side.of((THREE, "teacher"))),
        teacher=(0, 1),
        stages=("projector", "predictor"),
        contrasts="and with the views swapped",
        notes=("2 - 2 x cosine", "of each positive;", "negatives are not used"),
    ),
    Picture(
        "SCE",
        ["weak", "strong"],
        (Side.of((THREE, "student")), Side.of((THREE, "teacher"), (FOUR_OLD, "old"))),
        teacher=(0,),
        student=(1,),
        extraction={"size": 4},
        queue=[[7], [8], [9], [10]],
        soft="teacher's target",
        notes=("InfoNCE, and", "cross-entropy with the", "teacher's similarities"),
    ),
    Picture(
        "RINCE",
        ["key", "query"],
        (Side.of((THREE, "student")), Side.of((THREE, "teacher"), ([0, 1, 2, 3], "old"))),
        teacher=(0,),
        student=(1,),
        extraction={"size": 4},
        ids=[[0, 0, 0], [1, 1, 0], [2, 2, 1]],
        queue=[[7, 0, 0], [8, 1, 0], [9, 2, 1], [10, 3, 1]],
        notes=("InfoNCE for each rank,", "against all that is", "farther than the rank"),
    ),
    Picture(
        "AMDIM",
        ["view 1", "view 2"],
        (Side.of((THREE, "student")), Side.of(([0] * 4 + [1] * 4 + [2] * 4, "student"))),
        stages=("head a map",),
        extraction={"out_dim": None},
        maps=((8, 3, 3), (8, 2, 2), (8, 1, 1)),
        contrasts="and five more pairs of maps and views",
        notes=("-log softmax at each", "location of the image's", "other view"),
    ),
    Picture(
        "CPC",
        ["patches"],
        (Side.of(([0, 0, 1, 1], "student")), Side.of(([0] * 6 + [1] * 6, "student"))),
        student=(0,),
        stages=("context",),
        extraction={"distances": [2]},
        maps=((8, 3, 2),),
        images=2,
        patches=(3, 2),
        contrasts="distance 2; and each other distance",
        notes=("-log softmax at the", "patch further down in", "the same column"),
    ),
    Picture(
        "YADIM",
        ["view 1", "view 2"],
        (Side.of((THREE, "student")), Side.of((THREE, "student"))),
        stages=("head",),
        contrasts="and with the views swapped",
        notes=("-log softmax at the", "image's other view"),
    ),
    Picture(
        "GroCo",
        ["view 1", "view 2"],
        (Side.of((THREE * 2, "student")), Side.of((THREE * 2, "student"))),
        notes=("sort each row softly;", "positives should come", "after the negatives"),
    ),
    Picture(
        "S2R2",
        ["view 1", "view 2", "view 3", "view 4"],
        (Side.of((THREE * 4, "student")), Side.of((THREE * 4, "student"))),
        student=(0, 1, 2, 3),
        notes=("1 - average precision", "of each row's ranking"),
    ),
    Picture(
        "SwAV",
        ["large 1", "large 2", "small"],
        (Side.of((THREE * 2, "student")), Side.of((FOUR_OLD, "old"))),
        student=(0, 1, 2),
        extraction={"prototypes": 4},
        soft="rest of the target",
        gray="prototype",
        contrasts="targets of large 1; and with large 2",
        notes=("cross-entropy with the", "even assignment of", "the other view"),
    ),
    Picture(
        "SimSiam",
        ["view 1", "view 2"],
        (Side.of((THREE, "student")), Side.of((THREE, "student"))),
        stages=("projector", "predictor"),
        contrasts="and with the views swapped",
        notes=("half of 1 - cosine", "of each positive, which", "has no gradient;", "negatives are not used"),
    ),
    Picture(
        "SupCon",
        ["view 1", "view 2"],
        (Side.of((THREE * 2, "student")), Side.of((THREE * 2, "student"))),
        ids=[[0, 0], [1, 0], [2, 1]],
        notes=("mean over anchors of", "-log softmax at their", "positives of all ranks"),
    ),
    Picture(
        "ReSSL",
        ["weak", "strong"],
        (Side.of((THREE, "student")), Side.of((THREE, "teacher"), (FOUR_OLD, "old"))),
        teacher=(0,),
        student=(1,),
        extraction={"size": 4},
        queue=[[7], [8], [9], [10]],
        soft="teacher's target",
        notes=("cross-entropy with the", "teacher's similarities;", "the positive is left out"),
    ),
]
