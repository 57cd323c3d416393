"""Models from elsewhere: loaded safely, and cut where a new head begins."""
