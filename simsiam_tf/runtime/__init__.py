"""Services of the process: errors, devices, progress, signals, streams, safe files."""
