"""The entry point: commands, and how errors leave the program.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 something was found wanting, 2 the input is at fault,
130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from ..errors import UserError

app = typer.Typer(
    name="mtl-nlp",
    help="One encoder, many NLP tasks: check, train, score and use multi-task models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
INTERRUPTED = 130
tasks_app = typer.Typer(help="The task files that ship, and those beside a recipe.", no_args_is_help=True)
app.add_typer(tasks_app, name="tasks")
fuse_app = typer.Typer(
    help="Several finished models into one: ensemble, merged weights, distillation.", no_args_is_help=True
)
app.add_typer(fuse_app, name="fuse")


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on stderr.")] = False,
) -> None:
    """One encoder, many NLP tasks."""
    ours = logging.getLogger("mtl_nlp")
    ours.handlers = [logging.StreamHandler(sys.stderr)]
    ours.propagate = False
    ours.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        quieten_libraries()


def quieten_libraries() -> None:
    """Their load reports and tracebacks would bury ours; what matters of them is found and said by us."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("datasets", "pyarrow", "fsspec"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def quieten_loading() -> None:
    """No bar for loading weights that are on the disk already (imports transformers)."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def main() -> None:
    """Run a command; a fault of the input is one message and exit code 2, never a traceback."""
    from . import commands  # noqa: F401 - registers the commands

    try:
        # Without standalone mode typer hands back the code of `typer.Exit`, and 130 after Ctrl-C.
        code = app(standalone_mode=False)
    except UserError as error:
        fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`| head`); nothing is left to say, and Python must not try to flush stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        fail(_system_message(error))
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own usage errors
            fail(error.format_message() + "\nTry `mtl-nlp --help`.")
        raise
    if code == INTERRUPTED:
        fail("interrupted; `mtl-nlp train … --resume` continues a run from its newest checkpoint", INTERRUPTED)
    sys.exit(code or 0)


def _system_message(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    cure = "; free some space and use --resume" if error.errno == 28 else ""
    return f"{where}{error.strerror or error}{cure}"


def fail(message: str, code: int = 2) -> None:
    """Say what is wrong on stderr and leave."""
    sys.stderr.write(f"error: {message}\n" if code == 2 else f"{message}\n")
    sys.exit(code)
