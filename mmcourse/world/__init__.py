"""The world that the model learns: scenes, and their pictures, captions and speech."""
