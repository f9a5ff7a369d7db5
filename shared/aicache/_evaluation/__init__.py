"""Replays a labelled stream of questions through the matcher core and says how often it was right."""
