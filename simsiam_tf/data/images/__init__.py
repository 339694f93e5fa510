"""Encoded images: their check before any pixel is decoded, and their decoding."""
