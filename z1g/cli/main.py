"""The command line: `z1g <verb>`. Each command imports only the modules it needs."""

import argparse
import errno
import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from z1g.core.errors import EXIT_PREEMPTED, EXIT_USER_ERROR, Preempted, UserError
from z1g.core.stages import CHAIN

REMEDIES = {
    errno.ENOSPC: "the disk is full; make room and run the same command again",
    errno.EDQUOT: "the disk quota is used up; make room and run the same command again",
    errno.EROFS: "the file system is read-only; make it writable and run the same command again",
    errno.EACCES: "permission denied; give this user access, or name another place",
    errno.EPERM: "operation not permitted; give this user access, or name another place",
    errno.ENOENT: "no such file or folder, and it cannot be created here; correct the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder; correct the path",
    errno.EEXIST: "it exists already and is not what is needed here; correct the path",
    errno.EISDIR: "it is a folder, not a file; correct the path",
    errno.ENAMETOOLONG: "the name is too long; use a shorter one",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
}
"""What to do about errors of the operating system; others are shown in its own words."""


@dataclass(frozen=True)
class Verb:
    """A command: the module with `add_arguments(parser, verb)` and `main(verb, arguments) -> exit code or None`."""

    module: str
    help: str


VERBS = {
    **{stage.name: Verb("z1g.cli.stage", stage.help) for stage in CHAIN},
    "infer": Verb("z1g.cli.infer", "photographs to splats; as a stage: sample a chunk of objects"),
    "search": Verb("z1g.cli.search", "search options of an ablation with Optuna"),
    "ablation": Verb("z1g.cli.results", "collect one ablation's results under its name"),
    "compare": Verb("z1g.cli.compare", "compare results, with confidence intervals of paired differences"),
    "verify": Verb("z1g.cli.verify", "check an ablation's files, identities and a sample of its metrics"),
    "tables": Verb("z1g.cli.results", "write the tables that compare ablations"),
    "report": Verb("z1g.cli.results", "write the HTML report"),
    "prune": Verb("z1g.cli.results", "decide which arms of a study are trained beyond a rung"),
    "view": Verb("z1g.cli.view", "show splats in the browser"),
    "mesh": Verb("z1g.cli.mesh", "convert splats to a textured mesh"),
    "export": Verb("z1g.cli.export", "convert splats to the file formats of other tools"),
    "list": Verb("z1g.cli.listing", "write a list of the objects in folders and archives"),
    "plan": Verb("z1g.cli.plan", "show the stages to run, with their identities"),
    "bench": Verb("z1g.cli.bench", "measure speed and memory"),
    "config": Verb("z1g.cli.config", "print the schema, the reference page or a resolved configuration"),
}


def parser_for(verb: str) -> argparse.ArgumentParser:
    """Return the argument parser of a command."""
    parser = argparse.ArgumentParser(prog=f"z1g {verb}", description=VERBS[verb].help)
    importlib.import_module(VERBS[verb].module).add_arguments(parser, verb)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Exit codes: 0 success, 1 verify found a fault, 2 an error that the user can fix, 75 preempted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not be UTF-8, nor the terminal.
        sys.stdout.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    overview = argparse.ArgumentParser(prog="z1g", formatter_class=argparse.RawDescriptionHelpFormatter)
    overview.epilog = "\n".join(f"  {name:<12} {verb.help}" for name, verb in VERBS.items())
    overview.add_argument("verb", choices=VERBS, metavar="verb")
    verb = overview.parse_args(words[:1]).verb
    parsed = parser_for(verb).parse_args(words[1:])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=f"z1g {verb}: %(message)s")
    for library in ("httpx", "numba", "PIL", "accelerate", "diffusers", "transformers", "trimesh"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        code: int | None = importlib.import_module(VERBS[verb].module).main(verb, parsed)
    except UserError as error:
        sys.stderr.write(f"z1g {verb}: error: {error}\n")
        return EXIT_USER_ERROR
    except Preempted as error:
        sys.stderr.write(f"z1g {verb}: {error}\n")
        return EXIT_PREEMPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        sys.stderr.write(f"z1g {verb}: error: {_in_one_line(error)}\n")
        return EXIT_USER_ERROR
    else:
        return code or 0
    return 0


def _in_one_line(error: OSError) -> str:
    """Path, cause and remedy of an operating system's error; libraries raise some that have only a message."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    cause = str(error.strerror or error or type(error).__name__).strip()
    return where + REMEDIES.get(error.errno or 0, " ".join(cause.splitlines()))
