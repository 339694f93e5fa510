"""Chooses options of a run from what is known at its start; every option can be given by hand instead."""
