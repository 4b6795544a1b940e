"""`activelearning`: the commands put together, and one place where errors become a paragraph and an exit code.

Exit codes: 0 done, 1 failed, 2 bad input, 3 waiting for outside results, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from activelearning.cli import housekeeping, lab, proxy, reading, running, sample
from activelearning.errors import ActiveLearningError

app = typer.Typer(
    name="activelearning",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Multi-fidelity active learning for materials discovery.",
)
for _module in (running, reading, sample, housekeeping):
    _module.register(app)
app.add_typer(lab.app, name="lab")
app.add_typer(proxy.app, name="proxy")
app.add_typer(housekeeping.database_app, name="db")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"activelearning {version('activelearning')}")
        raise typer.Exit()


@dataclass
class _Settings:
    """What the options before the command say, for one invocation."""

    debug: bool = False


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[
        bool,
        typer.Option("--debug", envvar="ACTIVELEARNING_DEBUG", help="Show tracebacks, for reports of bugs."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    context.obj.debug = debug


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    code = invoke(sys.argv[1:] if arguments is None else arguments)
    launch = sys.modules.get("flows.launch")
    if launch is not None and launch.prefect_is_lost:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def invoke(arguments: Sequence[str]) -> int:
    """Run a command; returns its exit code. Errors go to standard error as one paragraph."""
    settings = _Settings()
    try:
        app(args=list(arguments), prog_name="activelearning", obj=settings)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except ActiveLearningError as error:
        _tell(error, settings, " ".join(str(error).split()))
        return error.exit_code
    except BrokenPipeError:
        # The reader (`head`, a pager) has seen enough; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if _is_store_fault(error):
            _tell(error, settings, f"The store failed: {_first_line(error)}. All that was committed is kept.")
            return 1
        said = " ".join(str(error).split())
        _tell(error, settings, f"This is a bug: {type(error).__name__}: {said}. With --debug it shows where.")
        return 1
    return 0


def _tell(error: BaseException, settings: _Settings, paragraph: str) -> None:
    if settings.debug:
        traceback.print_exception(error)
    mark = "" if isinstance(error, running.StoppedError) else "Error: "
    typer.echo(f"{mark}{paragraph}", err=True)


def _is_store_fault(error: Exception) -> bool:
    if "sqlalchemy" not in sys.modules:
        return False
    from sqlalchemy.exc import InterfaceError, OperationalError

    return isinstance(error, OperationalError | InterfaceError)


def _first_line(error: Exception) -> str:
    original = getattr(error, "orig", None) or error
    return str(original).strip().split("\n")[0].rstrip(".")


if __name__ == "__main__":
    main()
