"""Conversion of weights that official repositories published to the form of this project."""
