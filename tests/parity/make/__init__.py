"""Makes the fixtures in `own/`; see `__main__`."""
