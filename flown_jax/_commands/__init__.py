"""The place of `experiments` and `configs` in an installed package, for the program `flown`.

In a checkout it is empty. Nothing of the library imports from here.
"""
