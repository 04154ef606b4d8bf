"""A drill: real pushes while something breaks, and the proof afterwards that none that was acknowledged is lost."""
