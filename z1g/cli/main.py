"""The command line: `z1g <verb>`. Each command imports only the modules it needs."""

import argparse
import atexit
import contextlib
import errno
import importlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

import z1g
from z1g.cli.arguments import refuse_empty, say_defaults
from z1g.core.errors import (
    EXIT_INTERRUPTED,
    EXIT_PREEMPTED,
    EXIT_TERMINATED,
    EXIT_USER_ERROR,
    Preempted,
    Terminated,
    UserError,
)
from z1g.core.imports import are_kept
from z1g.core.stages import CHAIN

OUT_OF_MEMORY = "there is not enough memory; end other programs, or choose smaller sizes or batches"
NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "out of memory")
"""Parts of torch's messages of a CPU and of a GPU."""
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
    errno.EFBIG: "it is too large to be what is needed here; correct the path",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
}
"""What to do about errors of the operating system; others are shown in its own words."""
AGAIN = "the same command starts it again"
"""What to do after a signal: outputs are complete or absent, and training has its checkpoints."""


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
    "conditions": Verb("z1g.cli.conditions", "write the condition images that other systems must be given"),
    "evaluate": Verb("z1g.cli.evaluate", "measure outputs of other systems on the same objects and views"),
    "verify": Verb("z1g.cli.verify", "check an ablation's files, identities and a sample of its metrics"),
    "tables": Verb("z1g.cli.results", "write the tables that compare ablations"),
    "report": Verb("z1g.cli.results", "write the HTML report"),
    "prune": Verb("z1g.cli.results", "decide which arms of a study are trained beyond a rung"),
    "pack": Verb("z1g.cli.pack", "write a trained run as a folder that needs no results tree"),
    "publish": Verb("z1g.cli.publish", "put a model on the Hugging Face Hub"),
    "app": Verb("z1g.cli.app", "make splats of photographs on a page in the browser"),
    "view": Verb("z1g.cli.view", "show splats in the browser"),
    "film": Verb("z1g.cli.film", "make a film of splats along a camera path"),
    "mesh": Verb("z1g.cli.mesh", "convert splats to a textured mesh"),
    "export": Verb("z1g.cli.export", "convert splats to the file formats of other tools"),
    "list": Verb("z1g.cli.listing", "write a list of the objects in folders and archives"),
    "corpus": Verb("z1g.cli.corpus", "convert open objects from Debian's packages to GLB, and list them"),
    "plan": Verb("z1g.cli.plan", "show the stages to run, with their identities"),
    "status": Verb("z1g.cli.status", "show what every stage of a set is doing"),
    "bench": Verb("z1g.cli.bench", "measure speed and memory"),
    "config": Verb("z1g.cli.config", "print the schema, the reference page or a resolved configuration"),
}


def parser_for(verb: str) -> argparse.ArgumentParser:
    """Return the argument parser of a command."""
    parser = argparse.ArgumentParser(prog=f"z1g {verb}", description=VERBS[verb].help)
    importlib.import_module(VERBS[verb].module).add_arguments(parser, verb)
    refuse_empty(parser)
    say_defaults(parser)
    return parser


def run() -> NoReturn:
    """`main` with the words of the command line, then the end of the process."""
    code = main()
    # What Python does after this has nothing to tell, nor do libraries whose import Ctrl-C has ended.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.disable()
    if are_kept():
        # Python would free the libraries object by object, for up to a second.
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python does
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Exit codes: 0 success, 1 verify found a fault, 2 an error that the user can fix, 75 preempted, 130 Ctrl-C,
    143 SIGTERM. After all but 0 and 1, the last line on stderr says why.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not be UTF-8, nor the terminal.
        sys.stdout.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb = words[0] if words and words[0] in VERBS else None
    with _signals(), _threads(verb):
        try:
            return _run(words)
        except UserError as error:
            _say(verb, f"error: {_escaped(str(error), words)}")
            return EXIT_USER_ERROR
        except Preempted as error:
            _say(verb, str(error))
            return EXIT_PREEMPTED
        except KeyboardInterrupt:
            _say(verb, f"interrupted; {AGAIN}")
            return EXIT_INTERRUPTED
        except Terminated:
            _say(verb, f"ended by SIGTERM; {AGAIN}")
            return EXIT_TERMINATED
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            _say(verb, f"error: {_escaped(_in_one_line(error), words)}")
            return EXIT_USER_ERROR
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            cause = _escaped(" ".join(str(error).split())[:200], words)
            _say(verb, f"error: {OUT_OF_MEMORY}{cause and f' ({cause})'}")
            return EXIT_USER_ERROR


def _run(words: list[str]) -> int:
    overview = argparse.ArgumentParser(prog="z1g", formatter_class=argparse.RawDescriptionHelpFormatter)
    overview.epilog = "\n".join(f"  {name:<12} {verb.help}" for name, verb in VERBS.items())
    overview.add_argument("--version", action="version", version=f"z1g {z1g.__version__}")
    overview.add_argument("verb", choices=VERBS, metavar="verb")
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        from z1g.core.names import did_you_mean

        raise UserError(f'there is no command "{words[0]}"{did_you_mean(words[0], VERBS)}')
    verb = overview.parse_args(words[:1]).verb
    parsed = parser_for(verb).parse_args(words[1:])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=f"z1g {verb}: %(message)s")
    for library in ("httpx", "numba", "PIL", "accelerate", "diffusers", "transformers", "trimesh"):
        logging.getLogger(library).setLevel(logging.WARNING)
    code: int | None = importlib.import_module(VERBS[verb].module).main(verb, parsed)
    return code or 0


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt and SIGTERM raise Terminated once, so that temporary files are removed.

    A second Ctrl-C ends the process at once. Has no effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, _terminate)}
    # A shell that starts commands in the background makes them ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        previous[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _threads(verb: str | None) -> Iterator[None]:
    """Let threads of libraries say errors of the operating system in one line, as TensorBoard's on a full disk."""
    before = threading.excepthook

    def say(ended: threading.ExceptHookArgs) -> None:
        if isinstance(ended.exc_value, OSError):
            _say(verb, f"error: {_in_one_line(ended.exc_value)}")
        else:
            before(ended)

    threading.excepthook = say
    try:
        yield
    finally:
        threading.excepthook = before


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise Terminated


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt


def _say(verb: str | None, text: str) -> None:
    """Write the last line; whoever reads stderr may have ended first, as after Ctrl-C in a pipeline."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"z1g{' ' if verb else ''}{verb or ''}: {text}\n")


def _escaped(text: str, words: Sequence[str]) -> str:
    """A message in which arguments with line feeds or other control characters are shown with escapes."""
    for word in words:
        if not word.isprintable():
            text = text.replace(word, word.encode("unicode_escape").decode())
    return text


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory was refused; torch, which need not be imported, has no class of its own for that of a CPU."""
    return isinstance(error, MemoryError) or any(mark in str(error) for mark in NO_MEMORY)


def _in_one_line(error: OSError) -> str:
    """Path, cause and remedy of an operating system's error; libraries raise some that have only a message."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    cause = str(error.strerror or error or type(error).__name__).strip()
    return where + REMEDIES.get(error.errno or 0, " ".join(cause.splitlines()))
