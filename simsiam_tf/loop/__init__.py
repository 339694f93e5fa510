"""The engine of every run: trains, records, evaluates, saves. It does not know what it trains (`task`)."""
