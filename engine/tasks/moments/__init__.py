"""Moment search as a task: a network learns which seconds of a video a sentence tells of."""
