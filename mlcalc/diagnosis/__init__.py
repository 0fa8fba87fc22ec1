"""Which diagnostics a trajectory allows, their results as text, JSON and a figure; radial distributions by mdtraj."""
