"""Command lines: parses flags into a configuration, writes help texts, and reports an error in one line."""
