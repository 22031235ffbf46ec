"""Targets that are whole networks for a data set that is shown: the zoos of several data sets.

The paper's model retrieval (section 3.1, A.4.2): weights of all zoos become vectors of one space,
an autoencoder makes latents of them, and a flow learns these latents given support images.
"""
