"""Helpers shared by all subpackages, rarely needed by users."""
