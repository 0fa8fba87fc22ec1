"""λ of one structure or of a trajectory: of each frame with its error, their distribution; text, JSON and figure."""
