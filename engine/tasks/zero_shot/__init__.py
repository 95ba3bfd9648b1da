"""Zero-shot recognition (Brattoli et al. 2020): videos are trained towards the vectors of their class names."""
