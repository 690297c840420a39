"""One file for each measured table: `mmcourse study chNN_name` writes data/results/chNN_name.json."""
