"""What ``dream3d evaluate`` does: cases and subjects to results, these to figures with intervals, these to a page."""
