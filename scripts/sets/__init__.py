"""Labelled sets of pictures made from packages of npm and Debian: `bash scripts/sets.sh` lists them."""
