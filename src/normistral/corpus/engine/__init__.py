"""Where and how the corpus's work is done: tasks, phases on datatrove's executors, and the manifest."""
