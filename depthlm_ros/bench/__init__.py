"""``depthlm bench``: the official procedure and ours, side by side in one run, stage by stage."""
