"""What the experiments of the chapters from 08 on are made of: how a prompt is cut, batches, models by name.

Above the world and the model, below recipes and studies, which train and measure with it; the chapters use it too.
"""
