"""The list of the commands of ``gte``, each in a module of its name, and how they end."""

import logging
import sys
from typing import Annotated, Any

from gte_core import GTEError, __version__

try:
    import typer
    from typer.core import TyperGroup

    from gte_integrations.cli import output
except ImportError as error:
    raise ImportError("gte needs typer and rich; pip install 'gte-integrations[cli]'") from error

from gte_integrations.cli import INTERRUPTED
from gte_integrations.cli.bench import bench
from gte_integrations.cli.delete import delete
from gte_integrations.cli.download import download
from gte_integrations.cli.encode import encode
from gte_integrations.cli.explain import explain
from gte_integrations.cli.index import index
from gte_integrations.cli.info import info
from gte_integrations.cli.messages import Notes, in_options
from gte_integrations.cli.prune import prune
from gte_integrations.cli.reindex import reindex
from gte_integrations.cli.search import search
from gte_integrations.cli.stores import StoreError

_EXPECTED = (GTEError, ImportError, NotImplementedError, OSError, StoreError, ValueError)


class _Commands(TyperGroup):
    """The commands; turns what a user can do something about into one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        output.accept_any_text()
        logging.basicConfig(handlers=[Notes()], format="%(message)s")
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            raise  # typer leaves quietly
        except (KeyboardInterrupt, typer.Abort) as error:
            output.note(" ".join(["Interrupted.", *_notes(error)]))
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if ctx.params["traceback"] or not isinstance(error, _EXPECTED):
                raise
            message = "\n".join([_said(error) or type(error).__name__, *_notes(error)])
            output.error_line(in_options(message))
            raise typer.Exit(1) from error


def _said(error: Exception) -> str:
    """What an error says; one of the system would begin with a number, such as [Errno 2]."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}."
    return str(error)


def _notes(error: BaseException) -> list[str]:
    """What was added to an error on its way, such as how far ``add`` came."""
    return list(getattr(error, "__notes__", []))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gte-integrations {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=_Commands,
    help="Dense and sparse GTE vectors in one pass, and hybrid search in Qdrant and Milvus.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _settings(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error came from.")
    ] = False,
) -> None:
    pass


# In this order, --help lists them.
app.command()(index)
app.command()(search)
app.command()(info)
app.command()(delete)
app.command()(prune)
app.command()(reindex)
app.command()(encode)
app.command()(explain)
app.command()(bench)
app.command()(download)
