"""Weights that the official repositories published, in the form of this project."""
