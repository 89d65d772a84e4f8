"""Benchmark of one, two, four and eight GPUs: the stages that train together, and chunks of objects side by side.

`rows` starts one process a GPU for each row, `rank` is that process, `training` and `chunks` are what it times, and
`table` shows the figures.
"""
