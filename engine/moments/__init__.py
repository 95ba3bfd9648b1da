"""Moment search: plain words in, the seconds of the video out (after CI-MHA, Yu et al. 2021)."""
