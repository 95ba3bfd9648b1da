"""What a run can train: one folder or file a task, named in `catalogue`."""
