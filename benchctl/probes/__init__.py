"""What is measured about a model: operations, time, memory, and memory predicted without a GPU."""
