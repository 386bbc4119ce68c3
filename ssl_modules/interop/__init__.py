"""Importing weights from other libraries, which need not be installed."""
