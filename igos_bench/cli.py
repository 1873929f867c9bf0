"""The commands; with `overrides` the only module that knows Hydra.

    igos-bench [run] [overrides]     explain and score (the default); -m sweeps
    igos-bench score [overrides]     score the stored maps of the same run again, under another protocol
    igos-bench table [results_dir=.] make and print results/table.csv
    igos-bench check-data [overrides] say what the data are, and whether the model recognises them

Overrides are KEY=VALUE of a key in conf/. Flags: -m sweeps over values a,b,c; --config-dir FOLDER adds your own YAML
files (method/, model/, data/, protocol/).

Exit codes: 0 done, 1 a job of a sweep broke, 2 a mistake in what was asked, 3 some images failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from .config import RunConfig
from .errors import UnavailableError, UserError, unknown

COMMANDS = ("run", "score", "table", "check-data")


def main() -> int:
    """Run the command that the command line asks for; return its exit code."""
    words = sys.argv[1:]
    command = "run"
    try:
        if words and "=" not in words[0] and not words[0].startswith("-"):
            command = words.pop(0)
            if command not in COMMANDS:
                raise UserError(unknown("command", command, COMMANDS))
        if {"--help", "-h"} & set(words):
            print(__doc__)
            return 0
        return _table(words) if command == "table" else _run(command, words)
    except UserError as error:
        print(f"igos-bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = " ".join(["igos-bench", *sys.argv[1:]])
        print(f"igos-bench: interrupted; what was done is kept, `{again}` goes on from there", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `igos-bench --help` lists the flags")


def _run(command: str, words: list[str]) -> int:
    import hydra

    from .overrides import CONF, check_overrides, typed

    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_intermixed_args(words)
    check_overrides(asked.overrides, asked.config_dir)
    ended: list[tuple[str, int]] = []

    def job(config: Any) -> None:
        name = "a cell"
        try:
            checked = typed(config)
            name = f"{checked.method['name']} at {checked.resolution} on {checked.model.name}"
            ended.append((name, _job(command, checked)))
        except UnavailableError as error:
            print(f"igos-bench: not available: {error}" if asked.multirun else f"igos-bench: {error}", file=sys.stderr)
            ended.append((name, 0 if asked.multirun else 2))
        except UserError as error:
            print(f"igos-bench: {error}", file=sys.stderr)
            ended.append((name, 2))
        except Exception:
            if not asked.multirun:
                raise
            ended.append((f"{name} (see {_log(checked, name)})", 1))

    logging.getLogger("hydra").setLevel(logging.ERROR)
    sys.argv = [sys.argv[0], *words]
    hydra.main(config_path=CONF, config_name="config", version_base="1.3")(job)()
    failed = [(name, code) for name, code in ended if code]
    if asked.multirun:
        print(f"\n{len(ended) - len(failed)} of {len(ended)} cells without a failure")
        for name, code in failed:
            print(f"igos-bench: failed with {code}: {name}", file=sys.stderr)
    return max((code for _, code in failed), default=0)


def _log(config: RunConfig, name: str) -> Path:
    """Write the traceback of what just broke, and say where."""
    moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    path = Path(config.results_dir, "logs", f"{moment} {name}.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(traceback.format_exc(), encoding="utf-8")
    print(f"igos-bench: {name} broke: {sys.exc_info()[1]!r}; the whole story is in {path}", file=sys.stderr)
    return path


def _job(command: str, config: RunConfig) -> int:
    if command == "check-data":
        from .check_data import check_data

        return check_data(config)
    from .console import Progress, print_header, print_summary
    from .prepare import prepare
    from .runner import execute

    warnings.showwarning = lambda message, *_args, **_kwargs: print(f"igos-bench: {message}", file=sys.stderr)
    run = prepare(config)
    print_header(command, run)
    progress = Progress(len(run.images))
    try:
        outcome = execute(run, progress, explain=command == "run")
    finally:
        progress.close()
    return print_summary(outcome.rows, outcome.directory, outcome.records)


def _table(words: list[str]) -> int:
    from .table import make_table, printed, write_table

    options = dict(word.partition("=")[::2] for word in words)
    for key in options:
        if key != "results_dir":
            raise UserError(unknown("key", key, ["results_dir"]))
    results_dir = Path(options.get("results_dir", "results"))
    table = make_table(results_dir)
    write_table(table, results_dir / "table.csv")
    print(printed(table))
    print(f"\nwritten to {results_dir / 'table.csv'}, with the paper's numbers (VGG19, 5,000 ImageNet images)")
    incomplete = table[table["n"] < table["requested"]]
    if len(incomplete):
        print(f"igos-bench: {len(incomplete)} cells are incomplete (marked !)", file=sys.stderr)
    return 0
