"""Images and episodes."""
