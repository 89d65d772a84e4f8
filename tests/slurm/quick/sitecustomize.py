"""Python imports this at its start: Snakemake's processes, three for a job, look for no garbage among their imports."""

import gc

gc.disable()
