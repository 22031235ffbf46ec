"""Whole networks for a data set that is shown: one codec and one flow over the zoos of several.

The paper's model retrieval (section 3.1, A.4.2): weights of all zoos become vectors of one space,
an autoencoder makes latents of them, and a flow learns these latents given support images.
"""
