"""The published failures of direct forces and their cure, on liquid water: runs, series, page."""
