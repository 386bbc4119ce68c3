"""Roads from other libraries; none of them has to be installed."""
