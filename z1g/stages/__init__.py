"""One module per stage of the DAG, each with `run(folder, ...)`, which the command of the same name calls."""
