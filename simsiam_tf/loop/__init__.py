"""The engine of every run: trains, records, evaluates, saves. A `Task` says what is trained."""
