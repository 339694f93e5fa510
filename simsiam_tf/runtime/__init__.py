"""Services of the process: errors, devices, memory, progress, signals, standard streams, safe files."""
