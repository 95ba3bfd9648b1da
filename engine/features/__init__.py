"""Features of the windows of videos: extracted once, kept in a memory-mapped array, read by searches and heads."""
