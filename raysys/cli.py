"""The `raysys` command: one subcommand a stage, in the order of the data; parses, calls, prints.

stdout carries the result, its last line the artifact's URI; stderr carries progress and logs. Exit
status 0: done, 1: the work failed, 2: the input is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import raysys
from raysys.config import Config, load_config
from raysys.errors import known_cause
from raysys.pipeline import STAGES, plan_stages, run_stages
from raysys.tracking import logs

BENCHES = {
    "stream": "tar to ready batch, beside webdataset and Ray Data",
    "pack": "a catalogue of many small photos, beside a plain writer",
    "loss": "the loss over 1 to 8 ranks, beside autograd on gathered captions",
    "train": "training steps, beside open_clip, transformers and the towers alone",
    "scaling": "what more GPUs would bring: a plan, and its check on processes here",
}
# What a bench is made small by: whether it runs at all is then seen in seconds.
_QUICK = (
    "bench.rounds=1",
    "bench.seconds=0.2",
    "bench.megapixels=[0.05]",
    "bench.workers=[1]",
    "bench.batch_size=16",
    "ray.num_cpus=2",  # Ray starts a process for each
    "stream.decode_concurrency=1",  # so that reading has the other
    "bench.pack_items=[2000]",
    "bench.loss_ranks=[1, 2]",
    "bench.loss_rows=64",
    "bench.scaling_ranks=[1, 2]",
    "bench.scaling_rows=[8]",
    "bench.train_batch_size=8",
    "bench.train_steps=1",
    "bench.train_warm_up_steps=1",
    "bench.train_megapixels=0.05",
    "encoder.tiny.image_size_px=64",
)
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
_STOPPED = "stopped; the same command continues where it was"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status."""
    arguments = _parse(list(sys.argv[1:] if argv is None else argv))
    debug = bool(os.environ.get("RAYSYS_DEBUG"))
    logs.log_to_stderr(debug=debug)
    try:
        with _results_apart() as arguments.out:
            status: int = arguments.call(arguments)
        return status
    except KeyboardInterrupt:
        return _say(_STOPPED, INTERRUPTED)
    except SystemExit as error:
        if error.code != signal.SIGTERM:  # what Ray ends a driver with at SIGTERM
            raise
        return _say(_STOPPED, TERMINATED)
    except Exception as error:
        known = known_cause(error)
        if debug or known is None:
            raise
        return _say(known, known.exit_status)


def _say(what: object, status: int) -> int:
    print(f"raysys: {what}", file=sys.stderr)
    return status


@contextlib.contextmanager
def _results_apart() -> Iterator[TextIO]:
    """Yield stdout for results alone; what anybody else prints meanwhile goes to stderr.

    Ray prints its cluster's warnings, some not before it is left: so a session begun here ends here.
    """
    out, was_connected = sys.stdout, _is_connected()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield out
        finally:
            if _is_connected() and not was_connected:
                from raysys.cluster import session

                session.disconnect()


def _is_connected() -> bool:
    ray = sys.modules.get("ray")  # not imported by commands that need no cluster
    return ray is not None and ray.is_initialized()


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    # Words behind an option come back unparsed; `key=value` may stand anywhere.
    unknown = [word for word in rest if word.startswith("-") or "=" not in word]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="raysys", description=raysys.__doc__)
    parser.add_argument("--version", action="version", version=f"raysys {raysys.__version__}")
    commands = parser.add_subparsers(
        title="commands, in the order of the data", required=True, metavar="COMMAND"
    )
    demo = _command(
        commands, "demo", _demo, "the whole path on a drawn catalogue, then a live page", needs_config=False
    )
    demo.add_argument("--exit", action="store_true", help="end by itself; also when there is no terminal")
    _with_output(_command(commands, "run", _run, "every stage in order, skipping what is up to date"))
    for stage, what in STAGES.items():
        _with_output(_command(commands, stage, _stage, what)).set_defaults(stage=stage)
        if stage == "pack":
            _with_verify(commands)
    _command(commands, "serve", _serve, "encoder and index answer over HTTP, until Ctrl-C")
    submit = _command(commands, "submit", _submit, "a stage as a job on a Ray cluster")
    submit.add_argument("stage", help="run, or one of the stages")
    submit.add_argument("--address", help="the cluster's dashboard, http://HEAD:8265 (default: RAY_ADDRESS)")
    submit.add_argument(
        "--follow", action="store_true", help="copy the job's log and end with its exit status"
    )
    submit.add_argument("--interpreter", help="the cluster's Python (default: python)")
    bench = commands.add_parser(
        "bench", help="measured beside peers and the limit", description=_bench_help()
    )
    bench.add_argument("what", choices=BENCHES, metavar="WHAT", help=", ".join(BENCHES))
    bench.add_argument(
        "words", metavar="CONFIG", nargs="*", help="a YAML file, and key=value settings over it"
    )
    bench.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    bench.add_argument("--quick", action="store_true", help="small and soon over; its figures say nothing")
    bench.set_defaults(call=_bench, overrides=[])
    show = _command(commands, "config", _config, "the resolved configuration", needs_config=False)
    show.add_argument("--schema", action="store_true", help="print the JSON Schema of all settings")
    return parser


def _command(
    commands: Any, name: str, call: Callable[[argparse.Namespace], int], what: str, needs_config: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    if name != "demo":
        parser.add_argument(
            "config", metavar="CONFIG", nargs=None if needs_config else "?", help="a YAML file"
        )
    if name != "submit":
        parser.add_argument("overrides", metavar="key=value", nargs="*", help="settings over the file's")
    parser.set_defaults(call=call, overrides=[])
    return parser


def _with_verify(commands: Any) -> None:
    what = "shards, ours or any WebDataset, are looked through for damage"
    parser = commands.add_parser("verify", help=what, description=what)
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="a YAML file (the ShardSets of that configuration), or folders, tars, patterns, URIs; key=value",
    )
    parser.add_argument("--repair", metavar="OUT", help="write a clean copy there, with a ledger")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(call=_verify, overrides=[])


def _with_output(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done")
    return parser


def _stage(arguments: argparse.Namespace) -> int:
    return _run_stages(arguments, [arguments.stage])


def _verify(arguments: argparse.Namespace) -> int:
    from raysys.verify import stage  # takes a second to import

    stage.run(arguments.paths, arguments.overrides, arguments.repair, arguments.json, arguments.out)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    return _run_stages(arguments, list(STAGES))


def _run_stages(arguments: argparse.Namespace, names: list[str]) -> int:
    config = load_config(arguments.config, arguments.overrides)
    if arguments.dry_run:
        for line in plan_stages(config, names):
            print(line, file=arguments.out)
        return 0
    outcomes = list(run_stages(config, names))
    if arguments.json:
        made = [dataclasses.asdict(outcome) for outcome in outcomes]
        answer = made[0] if len(made) == 1 else {"uri": outcomes[-1].uri, "stages": made}
        print(json.dumps(answer), file=arguments.out)
    else:
        print(outcomes[-1].uri, file=arguments.out)
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, arguments.overrides)
    from raysys.serve import app

    with app.served(config) as address:
        print(address, flush=True, file=arguments.out)
        app.wait_for_stop()
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    config = load_config(str(demo_config()), arguments.overrides)
    from raysys import demo

    ends = arguments.exit or not arguments.out.isatty()
    demo.run(config, ends_by_itself=ends, out=arguments.out)
    return 0


def demo_config() -> Path:
    """`configs/demo.yaml` of the checkout, or of the installed package."""
    return _shipped_config("demo.yaml")


def _shipped_config(name: str) -> Path:
    package = Path(raysys.__file__).parent
    places = (package / "configs" / name, package.parent / "configs" / name)
    return next((place for place in places if place.exists()), places[-1])


def _submit(arguments: argparse.Namespace) -> int:
    from raysys.cluster import jobs

    return jobs.submit(
        arguments.stage,
        load_config(arguments.config, arguments.overrides),
        address=arguments.address,
        follow=arguments.follow,
        interpreter=arguments.interpreter,
        out=arguments.out,
        err=sys.stderr,
    )


def _bench(arguments: argparse.Namespace) -> int:
    words = [*arguments.words, *arguments.overrides]
    path = words.pop(0) if words and "=" not in words[0] else str(_shipped_config("bench.yaml"))
    config = load_config(path, [*(_QUICK if arguments.quick else ()), *words])
    from raysys.bench import runner

    report = runner.run(arguments.what, config, ["raysys", *sys.argv[1:]])
    if arguments.json:
        print(json.dumps(report.as_json()), file=arguments.out)
    else:
        report.print_table(arguments.out)
    return 0


def _bench_help() -> str:
    return "; ".join(f"{name}: {what}" for name, what in BENCHES.items())


def _config(arguments: argparse.Namespace) -> int:
    if arguments.schema:
        print(json.dumps(Config.model_json_schema(), indent=2), file=arguments.out)
        return 0
    import yaml

    config = load_config(arguments.config, arguments.overrides) if arguments.config else Config()
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    print(text, end="", file=arguments.out)
    return 0
