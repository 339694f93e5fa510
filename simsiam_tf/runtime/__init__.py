"""The process, not the science: errors, devices, progress, signals, files written whole."""
