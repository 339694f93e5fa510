"""How every run goes: begin, record, evaluate, commit, end. What is trained is a `task`."""
