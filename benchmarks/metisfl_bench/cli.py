"""The `bench` command, one subcommand a benchmark. Every one prints one JSON object on its last line with --json."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from metisfl.cli.extras import require
from metisfl.spec.fields import quantity_bytes
from metisfl.wire.codecs import Codec
from metisfl_bench import fanin, rounds
from metisfl_bench.layouts import LAYOUTS
from metisfl_bench.machine import machine
from metisfl_bench.processes import BenchError
from metisfl_controller import kernel_cache

_ERRORS = Console(stderr=True)
_OUTPUT = Console()


@click.group()
def bench() -> None:
    """Measure the controller's engine on this machine.

    Results are ratios against what the same machine does in the same run, so that they mean something elsewhere.
    Nothing else should run meanwhile.
    """
    require("controller", "numba", "fastapi", "prometheus_client", "uvicorn")


Command = Callable[..., Any]


def _common(command: Command) -> Command:
    """Options of every benchmark that moves or adds models."""
    for option in reversed(
        [
            click.option("--learners", type=click.IntRange(1, 100_000), default=25, show_default=True),
            click.option("--parameters", type=click.IntRange(1), default=1_000_000, show_default=True),
            click.option("--layout", type=click.Choice(list(LAYOUTS)), default="uniform16", show_default=True),
            click.option(
                "--rounds", "rounds_", type=click.IntRange(1), default=10, show_default=True, help="Repetitions."
            ),
            click.option("--json", "as_json", is_flag=True, help="One JSON object on the last line."),
        ]
    ):
        command = option(command)
    return command


@bench.command("round", short_help="Whole rounds of a real controller.")
@_common
@click.option("--codec", type=click.Choice([str(codec) for codec in Codec]), default="Float32", show_default=True)
@click.option("--compression", type=click.Choice(["None", "Zstd"]), default="None", show_default=True)
@click.option("--connection", type=click.Choice(["shared", "own"]), default="shared", show_default=True,
              help="One connection for all learners of the load process, or one each.")  # fmt: skip
@click.option("--process-per-learner", is_flag=True, help="A load process for each learner instead of one for all.")
@click.option("--checkpoint", is_flag=True, help="Write and sync every version, as in production.")
@click.option("--memory-budget", metavar="QUANTITY", help="spec.controller.memoryBudget, such as 2Gi.")
@click.option("--memory-limit", metavar="QUANTITY", help="Run the controller in a memory cgroup of this size (root).")
@click.option(
    "--shaped", metavar="RATE", help="Put a link of this rate between load and controller (root), e.g. 1gbit."
)
@click.option("--tls", is_flag=True, help="Mutual TLS, each learner on a connection of its own, and its price.")
@click.option("--no-stream", is_flag=True, help="Leave out the bare gRPC stream that the round is compared with.")
def round_command(
    learners: int,
    parameters: int,
    layout: str,
    rounds_: int,
    as_json: bool,
    codec: str,
    compression: str,
    connection: str,
    process_per_learner: bool,
    checkpoint: bool,
    memory_budget: str | None,
    memory_limit: str | None,
    shaped: str | None,
    tls: bool,
    no_stream: bool,
) -> None:
    """Whole rounds of a real controller, with learners that do no training.

    One warm-up round, then --rounds that count. The learners speak the real protocol over loopback; their uploads are
    encoded once, and what they download is thrown away. With --tls the same rounds are run in clear text first, for
    the ratio.
    """
    parameters_of_run = rounds.RoundBench(
        learners=learners,
        parameters=parameters,
        layout=layout,
        rounds=rounds_,
        codec=codec,
        compression=compression,
        shared_connection=connection == "shared",
        process_per_learner=process_per_learner,
        checkpoint=checkpoint,
        memory_budget=memory_budget,
        memory_limit=_bytes(memory_limit),
        shaped=shaped,
        tls=tls,
        bare_stream=not no_stream,
    )
    _report("round", as_json, lambda: rounds.run(parameters_of_run, _tell))


@bench.command("aggregate", short_help="The weighted mean, against the memory's speed.")
@_common
@click.option("--threads", type=click.IntRange(1), help="By default as many as the CPU limit allows.")
def aggregate_command(
    learners: int, parameters: int, layout: str, rounds_: int, as_json: bool, threads: int | None
) -> None:
    """The weighted mean of many models, against how fast this machine reads memory."""
    kernel_cache.prepare(os.environ)
    from metisfl_bench import aggregate

    of_run = aggregate.AggregateBench(learners, parameters, layout, rounds_, threads)
    _report("aggregate", as_json, lambda: aggregate.run(of_run, _tell))


@bench.command("rules", short_help="What each aggregation rule costs beside FedAvg.")
@_common
@click.option("--rules", "names", metavar="NAMES", default="all", show_default=True,
              help="Which to measure beside FedAvg, such as Median,Krum.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="By default as many as the CPU limit allows.")
def rules_command(
    learners: int, parameters: int, layout: str, rounds_: int, as_json: bool, names: str, threads: int | None
) -> None:
    """What each aggregation rule costs, beside FedAvg in the same run."""
    kernel_cache.prepare(os.environ)
    from metisfl_bench import rules

    known = {str(rule): rule for rule in rules.RULES}
    wanted = list(known) if names == "all" else names.split(",")
    if unknown := set(wanted) - set(known):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; known: {', '.join(known)}", param_hint="--rules")
    of_run = rules.RulesBench(learners, parameters, layout, rounds_, [known[name] for name in wanted], threads)
    _report("rules", as_json, lambda: rules.run(of_run, _tell))


@bench.command("fanin", short_help="Very many learners, a connection each.")
@click.option("--learners", type=click.IntRange(2, 10_000), default=10_000, show_default=True,
              help="Connections, all of them idle and then in one round.")  # fmt: skip
@click.option("--participants", type=click.IntRange(1, 10_000), default=1_000, show_default=True,
              help="Learners of the timed rounds.")  # fmt: skip
@click.option("--parameters", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--layout", type=click.Choice(list(LAYOUTS)), default="uniform16", show_default=True)
@click.option("--rounds", "rounds_", type=click.IntRange(1), default=5, show_default=True, help="Repetitions.")
@click.option("--codec", type=click.Choice([str(codec) for codec in Codec]), default="Float32", show_default=True)
@click.option("--load-processes", type=click.IntRange(1, 100), default=4, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on the last line.")
def fanin_command(
    learners: int,
    participants: int,
    parameters: int,
    layout: str,
    rounds_: int,
    codec: str,
    load_processes: int,
    as_json: bool,
) -> None:
    """Very many learners with a connection each: the controller's memory, and rounds against bare calls."""
    of_run = fanin.FanInBench(learners, participants, parameters, layout, rounds_, codec, load_processes)
    _report("fanin", as_json, lambda: fanin.run(of_run, _tell))


@bench.command("codecs", short_help="What each codec costs and saves.")
@_common
@click.option("--codec", "codecs", type=click.Choice([str(codec) for codec in Codec]), multiple=True,
              help="Which to measure, once or more; all of them by default.")  # fmt: skip
@click.option("--shaped", metavar="RATE", default="1gbit", show_default=True,
              help="Rate of the slow link in tc's notation (root).")  # fmt: skip
@click.option("--no-shaped", is_flag=True, help="Leave the slow link out.")
def codecs_command(
    learners: int,
    parameters: int,
    layout: str,
    rounds_: int,
    as_json: bool,
    codecs: tuple[str, ...],
    shaped: str,
    no_shaped: bool,
) -> None:
    """What each codec costs and saves: bytes, speed, error, and rounds over loopback and a slow link."""
    kernel_cache.prepare(os.environ)
    from metisfl_bench import codec_figures

    of_run = codec_figures.CodecBench(
        learners, parameters, layout, rounds_, codecs or tuple(Codec), None if no_shaped else shaped
    )
    _report("codecs", as_json, lambda: codec_figures.run(of_run, _tell))


def _report(name: str, as_json: bool, run: Callable[[], dict[str, Any]]) -> None:
    # So that a benchmark that is told to end takes its processes and files with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        result = {"benchmark": name, "machine": machine(), **run()}
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(result))
        return
    table = Table(title=f"bench {name}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in result.items():
        if _is_of_several(value):
            _OUTPUT.print(_side_by_side(key, value))
        elif key not in ("benchmark", "machine"):
            table.add_row(key, _shown(value))
    _OUTPUT.print(table)


def _is_of_several(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, dict) for each in value.values())


def _side_by_side(title: str, figures: dict[str, dict[str, Any]]) -> Table:
    """The same figures of several things, a column each."""
    table = Table(title=title, title_justify="left")
    table.add_column("figure", overflow="fold")
    for name in figures:
        table.add_column(name, justify="right")
    for key in next(iter(figures.values())):
        table.add_row(key, *(_shown(each[key]) for each in figures.values()))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, float):
        for unit, size in (("G", 1e9), ("M", 1e6)):
            if abs(value) >= size:
                return f"{value / size:,.3g} {unit}"
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(_shown(each) for each in value)
    if isinstance(value, dict):
        return "\n".join(f"{name} {_shown(each)}" for name, each in value.items())
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _tell(text: str) -> None:
    _ERRORS.print(text, style="dim", highlight=False)


def _bytes(quantity: str | None) -> int | None:
    if quantity is None:
        return None
    if not re.fullmatch(r"(\d+)(Ki|Mi|Gi|K|M|G|)", quantity):
        raise click.BadParameter(f"'{quantity}' is not a quantity such as 2Gi", param_hint="--memory-limit")
    return quantity_bytes(quantity)
