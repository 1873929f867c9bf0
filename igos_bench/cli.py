"""The commands; the only module that knows Hydra.

    igos-bench [run] [overrides]     explain and score (the default); -m sweeps
    igos-bench score [overrides]     score the stored maps of the same run again, under another protocol
    igos-bench table [results_dir=.] make and print results/table.csv

Exit codes: 0 done, 2 a mistake in what was asked, 3 some images or jobs failed, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import RunConfig
from .errors import UserError, unknown

if TYPE_CHECKING:
    from .results import Row

HERE = Path(__file__).parent
CONF = str(next(path for path in (HERE / "conf", HERE.parent / "conf") if path.is_dir()))
COMMANDS = ("run", "score", "table")


def main() -> int:
    """Run the command that the command line asks for; return its exit code."""
    words = sys.argv[1:]
    command = "run"
    try:
        if words and "=" not in words[0] and not words[0].startswith("-"):
            command = words.pop(0)
            if command not in COMMANDS:
                raise UserError(unknown("command", command, COMMANDS))
        if words in (["--help"], ["-h"]):
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


def _run(command: str, words: list[str]) -> int:
    import hydra

    check_overrides([word for word in words if not word.startswith("-")])
    codes: list[int] = []

    def job(config: Any) -> None:
        try:
            codes.append(_job(command, typed(config)))
        except UserError as error:
            print(f"igos-bench: {error}", file=sys.stderr)
            codes.append(2)

    logging.getLogger("hydra").setLevel(logging.ERROR)
    sys.argv = [sys.argv[0], *words]
    hydra.main(config_path=CONF, config_name="config", version_base="1.3")(job)()
    return max(codes, default=0)


def check_overrides(words: Sequence[str]) -> None:
    """Refuse, before anything is loaded, what `conf/` does not have; raises UserError with the near miss."""
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    try:
        overrides = OverridesParser.create().parse_overrides(list(words))
    except HydraException as error:
        raise UserError(f"cannot read the words {' '.join(words)!r}: {str(error).splitlines()[0]}") from None
    folders = (path for path in sorted(Path(CONF).iterdir()) if path.is_dir())
    groups = {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in folders}
    choices: list[str] = []
    others = []
    for override in overrides:
        key = override.key_or_group
        if key.split(".")[0].split("/")[0] == "hydra":
            continue
        if override.is_add() or override.is_force_add() or override.is_delete():
            raise UserError(f"{override.input_line}: keys cannot be added or removed; write KEY=VALUE of a known key")
        if key in groups:
            values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
            for value in map(str, values):
                if value not in groups[key]:
                    raise UserError(unknown(key, value, groups[key]))
            choices.append(f"{key}={value}")
        else:
            others.append(key)
    with initialize_config_dir(CONF, version_base="1.3"):
        known = list(_keys(OmegaConf.to_container(compose("config", choices), resolve=False)))
    for key in others:
        if key not in known and not any(name.startswith(f"{key}.") for name in known):
            parent = key.rpartition(".")[0]
            beside = [name for name in known if name.rpartition(".")[0] == parent] or [n for n in known if "." not in n]
            raise UserError(unknown("key", key, known, show=beside))


def typed(config: Any) -> RunConfig:
    """A composed config with the types of `config.RunConfig`; raises UserError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.to_container(config, resolve=True))
        found = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        key = next((line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")), "")
        raise UserError(f"{key}: {lines[0]}" if key else lines[0]) from None
    assert isinstance(found, RunConfig)
    return found


def _job(command: str, config: RunConfig) -> int:
    from tqdm import tqdm

    from .results import ok_rows
    from .runner import execute, prepare

    warnings.showwarning = lambda message, *_args, **_kwargs: print(f"igos-bench: {message}", file=sys.stderr)
    run = prepare(config)
    print(
        f"{command}: method={run.method.name} resolution={config.resolution} model={run.classifier.name} "
        f"data={run.manifest.name} ({len(run.images)} images) protocol={run.protocol.name} "
        f"device={run.device} precision={config.precision.value} seed={config.seed}",
        flush=True,
    )
    terminal = sys.stderr.isatty()
    bar = tqdm(total=len(run.images), unit="image", disable=not terminal)
    done: list[Row] = []

    def report(count: int, rows: list[Row]) -> None:
        done.extend(rows)
        bar.update(count)
        ok = ok_rows(done)
        if not ok or not count:
            return
        line = f"deletion {_mean(ok, 'deletion_auc'):.4f}, insertion {_mean(ok, 'insertion_auc'):.4f}"
        bar.set_postfix_str(line)
        if not terminal:
            print(f"{len(done)}/{len(run.images)} images: {line}", flush=True)

    try:
        outcome = execute(run, report, explain=command == "run")
    finally:
        bar.close()
    if outcome.resumed:
        print(f"resumed {outcome.resumed}/{len(run.images)}")
    return _summary(outcome.rows, outcome.directory, outcome.records)


def _summary(rows: list[Row], directory: Path, records: Path) -> int:
    """Print what came out; return the exit code."""
    from .results import ok_rows

    ok, failed = ok_rows(rows), [row for row in rows if row["status"] != "ok"]
    if ok:
        for key, better in (("deletion", "lower"), ("insertion", "higher")):
            mean, error = _mean(ok, f"{key}_auc"), _standard_error(ok, f"{key}_auc")
            print(f"{key:10}{mean:.4f} ± {error:.4f} (standard error, {len(ok)} images; {better} is better)")
        explain, score = _mean(ok, "explain_seconds"), _mean(ok, "score_seconds")
        print(f"seconds   {explain:.2f} explaining, {score:.2f} scoring an image")
        print(
            f"passes    {_mean(ok, 'forwards'):.1f} forward, {_mean(ok, 'backwards'):.1f} backward explaining an image"
        )
    print(f"maps      {directory / 'maps'}\nrecords   {records}")
    print("next      `igos-bench table` makes the table of all runs")
    for row in failed:
        print(f"failed    {row['image_id']}: {row.get('error')}", file=sys.stderr)
    if failed:
        print(
            f"igos-bench: {len(failed)} of {len(rows)} images failed; the same command tries them again",
            file=sys.stderr,
        )
    return 3 if failed else 0


def _numbers(rows: list[Row], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row.get(key) not in (None, "")]


def _mean(rows: list[Row], key: str) -> float:
    values = _numbers(rows, key)
    return sum(values) / len(values) if values else float("nan")


def _standard_error(rows: list[Row], key: str) -> float:
    values, mean = _numbers(rows, key), _mean(rows, key)
    if len(values) < 2:
        return float("nan")
    return float((sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)) ** 0.5)


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


def _keys(config: Any, prefix: str = "") -> list[str]:
    """Dotted names of all keys of a nested dictionary, its inner ones included."""
    found = []
    for key, value in config.items():
        found.append(f"{prefix}{key}")
        if isinstance(value, dict):
            found += _keys(value, f"{prefix}{key}.")
    return found
