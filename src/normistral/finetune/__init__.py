"""Fine-tune a model for a task: classification, tagging, answering, similarity, more text."""
