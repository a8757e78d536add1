"""Inputs and outputs of `la-det detect`, which detects objects in images, folders and videos."""
