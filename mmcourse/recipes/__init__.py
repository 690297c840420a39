"""How each shipped checkpoint was made: `python -m mmcourse train NAME` calls `mmcourse.recipes.NAME.main()`."""
