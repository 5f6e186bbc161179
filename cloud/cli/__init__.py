"""The command `meta-train`: one file per verb; domain errors become one line on stderr and an exit code."""

from __future__ import annotations

from typing import Any

import click

from ...edge.errors import EdgeAdaptError, UsageError
from ...edge.starting import INTERRUPTED, quit_on_interrupt, raise_on_interrupt
from ..errors import ConfigError, TrainingError
from .eval import evaluate_command
from .list import list_command
from .pretrain import pretrain_command
from .run import run_command
from .selection import selection_command


class _Commands(click.Group):
    """Turns the errors that are raised on purpose into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            raise_on_interrupt()
            return super().invoke(ctx)
        except (ConfigError, UsageError) as error:
            return _fail(ctx, error, 2)
        except EdgeAdaptError as error:
            return _fail(ctx, error, error.exit_code)
        except (TrainingError, OSError) as error:
            return _fail(ctx, error, 1)
        except KeyboardInterrupt:
            return _fail(ctx, "interrupted", INTERRUPTED)
        finally:
            quit_on_interrupt()


def _fail(ctx: click.Context, error: object, code: int) -> None:
    click.echo(f"Error: {error}", err=True)
    ctx.exit(code)


@click.group(
    cls=_Commands,
    epilog="Example: meta-train run pmeta-conv4-glyphs --out runs/glyphs",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="edge-adapt")
def main() -> None:
    """Meta-train a backbone on many small tasks, so that a device can adapt it from a few labelled samples.

    Exit codes: 0 done, 1 training failed, 2 usage or configuration, 130 interrupted.
    """


for _command in (list_command, pretrain_command, run_command, evaluate_command, selection_command):
    main.add_command(_command)

__all__ = ["main"]
