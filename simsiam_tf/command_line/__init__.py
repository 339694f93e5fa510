"""Command lines: flags to a configuration, help texts, one clear line for what is wrong."""
