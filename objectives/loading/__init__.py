"""Models and sentences from directories and the hub, checked, with their fingerprints."""
