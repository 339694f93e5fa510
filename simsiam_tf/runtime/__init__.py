"""What a process needs, whatever it computes: errors, devices, progress, signals, streams, safe files."""
