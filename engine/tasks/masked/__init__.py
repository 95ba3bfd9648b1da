"""Masked pretraining: a video transformer learns to fill in what is hidden of clips, without any label."""
