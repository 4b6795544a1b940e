"""Sampling on its own: train the sampler of a space on properties, write crystals and a page about them."""
