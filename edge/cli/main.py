"""The command group, and how errors become one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from ..errors import EdgeAdaptError
from ..starting import INTERRUPTED, raise_on_interrupt
from .bench import bench
from .doctor import doctor
from .inspect import inspect
from .merge import merge
from .plan import plan
from .predict import predict
from .run import run
from .verify import verify

EXIT_CODES = (
    "Exit codes: 0 done, 1 anything else (a full disk, too), 2 usage, 3 budget cannot be met, 4 bad bundle, "
    "5 bad support data, 130 interrupted."
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EXIT_CODES
)
@click.version_option(package_name="edge-adapt", prog_name="edge-adapt")
def commands() -> None:
    """Adapt a bundle to a few labelled samples inside a memory budget.

    \b
    Example:
      edge-adapt run bundle/ --support photos/ -o adapted/ --memory-budget 8MB
    """


for verb in (plan, run, predict, inspect, verify, merge, bench, doctor):
    commands.add_command(verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        raise_on_interrupt()
        code = commands.main(args=None if arguments is None else list(arguments), standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except EdgeAdaptError as error:
        return _failed(error, error.exit_code)
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else error, 1)
    except (KeyboardInterrupt, click.Abort) as error:
        return _failed(str(error.__cause__ or error) or "interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _failed(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
