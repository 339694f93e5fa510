"""Encoded images: what a header tells before a pixel is decoded."""
