"""Heads over features that were extracted once: fitted to the videos of seen classes, they rank classes by their names."""
