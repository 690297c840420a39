"""Who marks: judges of pictures, of words that are heard, of pitch, and the measures that need no opinion.

Nothing of the model imports a judge. What a judge was trained on stands in its docstring; print it beside its score.
"""
from mmcourse.judges.pictures import PictureReader, read_sign

__all__ = ["PictureReader", "read_sign"]
