"""The embedded data set: toys, scenes, files, and the encoder that was pretrained on it."""
