"""The loop of every training run. A `Task` says what is trained, evaluated and exported."""
