"""The command line: `benchctl COMMAND`. Each command lives in its own file and imports what it needs when it runs."""

from __future__ import annotations

import os
import sys

import typer

from benchctl.errors import BenchctlError

app = typer.Typer(
    name="benchctl",
    help="Benchmark efficient video understanding: accuracy, MACs, memory and GPU-hours under matched budgets.",
    no_args_is_help=True,
    # rich markup would triple the time of --help
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok; 1 a failed cell or a regression; 2 usage or a bad suite; 3 the environment lacks something; "
    "4 inconclusive; 130 interrupted.",
)


def main() -> None:
    """Entry point: no traceback reaches a user unless BENCHCTL_DEBUG is set."""
    _register()
    try:
        app()
    except BenchctlError as error:
        if os.environ.get("BENCHCTL_DEBUG"):
            raise
        print(f"benchctl: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # the reader of our output has gone, as in `benchctl report | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except ModuleNotFoundError as error:
        if os.environ.get("BENCHCTL_DEBUG"):
            raise
        print(f"benchctl: package '{error.name}' is not installed; install benchctl again with everything it needs", file=sys.stderr)  # noqa: T201
        sys.exit(3)
    except Exception as error:
        if os.environ.get("BENCHCTL_DEBUG"):
            raise
        first = " ".join(str(error).split())[:300]
        print(f"benchctl: internal error: {type(error).__name__}: {first}; BENCHCTL_DEBUG=1 shows where, please report it", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _register() -> None:
    from benchctl.cli import (  # noqa: F401  (importing registers)
        baseline,
        calibrate,
        check,
        claims,
        data,
        data_flow,
        data_tracks,
        data_verify,
        diagnose,
        diagnose_cascade,
        diagnose_weights,
        doctor,
        listing,
        plan,
        plot,
        report,
        run,
        schema,
        slurm,
        visualize,
        visualize_attention,
        visualize_features,
        visualize_models,
        visualize_tracks,
    )


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and end.", is_eager=True),
) -> None:
    """Handle options that come before any command."""
    if version:
        from benchctl import __version__

        typer.echo(f"benchctl {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


if __name__ == "__main__":
    main()
