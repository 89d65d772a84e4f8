"""One module a stage of the DAG; each has `run(folder, ...)`, called by the verb of the same name."""
