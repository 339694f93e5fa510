"""Encoded images: the check of their headers, and their decoding."""
