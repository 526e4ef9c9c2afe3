"""Polynomial programming: which estimator brings binary latents to the minimum of a polynomial."""
