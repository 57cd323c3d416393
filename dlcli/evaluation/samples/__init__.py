"""Images that a model draws or translates: made, shown in grids, and compared with real ones."""
