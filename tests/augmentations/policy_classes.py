"""The classes of the policies, each with two large views and no small views."""

from functools import partial

from ssl_modules.augmentations import (
    AMDIMViews,
    BYOLViews,
    CPCViews,
    GroCoViews,
    MoCoViews,
    ReSSLViews,
    SCEViews,
    SimCLRViews,
    SwAVViews,
    YADIMViews,
)

CLASSES = [
    AMDIMViews,
    BYOLViews,
    partial(CPCViews, patches=(4, 2)),
    GroCoViews,
    MoCoViews,
    ReSSLViews,
    SCEViews,
    SimCLRViews,
    partial(SwAVViews, small_views=0),
    YADIMViews,
]
