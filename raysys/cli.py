# PYTHON_ARGCOMPLETE_OK
"""The `raysys` command: arguments in, results on stdout, progress and logs on stderr.

The last line of stdout is the artifact's URI. Exit status 0: done, 1: the work failed, 2: the input is wrong,
128 + n: stopped by signal n.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TextIO

import raysys
from raysys import commands
from raysys.errors import known_cause
from raysys.parallel import has_unfinished_calls
from raysys.pipeline import STAGES
from raysys.storage.retry import unusable_place
from raysys.terminal import (
    drop_unwritable_output,
    has_lost_reader,
    print_anything,
    print_line,
    print_traceback,
    printable,
)
from raysys.tracking import logs
from raysys.tracking.ray_messages import RayMessages, native_stderr_as_log

BENCHES = {
    "stream": "from tar to ready batch, compared with webdataset and Ray Data",
    "pack": "packing many small photos, compared with a plain writer",
    "loss": "the loss over 1 to 8 ranks, compared with autograd on gathered captions",
    "train": "training steps, compared with open_clip, transformers and the towers alone",
    "embed": "from tar to vectors on disk, compared with a DataLoader and the encoder alone",
    "index": "search in an index of `index.*`, compared with FAISS alone and autofaiss",
    "serve": "the HTTP service under load, compared with FastAPI and FAISS in one process",
    "scaling": "a plan for more GPUs, and its check on processes of this machine",
}
INTERRUPTED, TERMINATED, CLOSED_PIPE = 128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGPIPE
_STOPPED = "stopped; the same command continues where it was"


def run() -> int:
    """The entry point of the `raysys` command and of `python -m raysys`."""
    print_anything()
    with native_stderr_as_log():
        status = _main_with_traceback()
        if has_unfinished_calls():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # at a normal exit, pyarrow waits for a store that does not answer
        return status


def _main_with_traceback() -> int:
    """As `main`, but an exception that nobody foresaw is printed as a traceback, with exit status 1."""
    try:
        return main()
    except Exception as error:
        with contextlib.suppress(OSError):  # nobody may read stderr any more
            print_traceback(error, sys.stderr)
        drop_unwritable_output()
        return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status."""
    arguments = _parse(list(sys.argv[1:] if argv is None else argv))
    debug = bool(os.environ.get("RAYSYS_DEBUG"))
    logs.log_to_stderr(debug=debug)
    try:
        with _results_only_on_stdout() as arguments.out:
            status: int = arguments.call(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _fail(_STOPPED, INTERRUPTED)
    except SystemExit as error:
        if error.code != signal.SIGTERM:  # Ray exits a driver with this code at SIGTERM
            raise
        return _fail(_STOPPED, TERMINATED)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and has_lost_reader():
            return CLOSED_PIPE
        known = unusable_place(error) or known_cause(error)
        if debug or known is None:
            raise
        return _fail(known, known.exit_status)
    finally:
        drop_unwritable_output()


def _fail(message: object, status: int) -> int:
    with contextlib.suppress(OSError):  # nobody may read stderr any more
        print_line(f"raysys: {message}", sys.stderr)
    return status


@contextlib.contextmanager
def _results_only_on_stdout() -> Iterator[TextIO]:
    """Yield stdout for results; whatever a library prints meanwhile becomes a log line on stderr.

    A Ray session that starts in the block ends in it, because Ray prints some messages at its end.
    """
    out, was_connected = sys.stdout, _is_connected()
    with contextlib.closing(RayMessages()) as messages, contextlib.redirect_stdout(messages):
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
    if "_ARGCOMPLETE" in os.environ:  # set by the shell while it completes a command line
        import argcomplete

        argcomplete.autocomplete(parser)
    arguments, rest = parser.parse_known_args(argv)
    # argparse does not parse positional words after an option; `key=value` is accepted anywhere.
    unknown = [word for word in rest if word.startswith("-") or "=" not in word]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.overrides = [*arguments.overrides, *rest]
    return arguments


class _Parser(argparse.ArgumentParser):
    """Its errors quote words of the command line, such as file names that the shell expanded."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and one line, and exit with status 2."""
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="raysys",
        description="Fine-tune SigLIP on photos and titles; embed, index, serve and evaluate the catalogue.",
    )
    parser.add_argument("--version", action="version", version=f"raysys {raysys.__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo = _command(
        subparsers,
        "demo",
        commands.run_demo,
        "run every stage on a drawn (synthetic) catalogue, then serve it",
        needs_config=False,
    )
    demo.add_argument(
        "--exit", action="store_true", help="exit after the queries; the default without a terminal"
    )
    _with_output(
        _command(subparsers, "run", commands.run_all, "run every stage in order and skip what is up to date")
    )
    _add_stages(subparsers)
    _add_serve(subparsers)
    submit = _command(subparsers, "submit", commands.submit, "run a stage as a job on a Ray cluster")
    submit.add_argument("stage", metavar="STAGE", help="run, serve or a stage")
    submit.add_argument("--address", help="the cluster's dashboard, http://HEAD:8265 (default: RAY_ADDRESS)")
    submit.add_argument("--follow", action="store_true", help="copy the job's log and exit with its status")
    submit.add_argument("--interpreter", help="the cluster's Python (default: python)")
    _add_bench(subparsers)
    show = _command(
        subparsers, "config", commands.show_config, "print the resolved configuration", needs_config=False
    )
    show.add_argument("--schema", action="store_true", help="print the JSON Schema of all settings")
    show.add_argument("--reference", action="store_true", help="print all settings as Markdown tables")
    return parser


def _add_stages(subparsers: Any) -> None:
    for stage, made in STAGES.items():
        parser = _with_output(_command(subparsers, stage, commands.run_stage, f"make {made}"))
        parser.set_defaults(stage=stage)
        if stage == "pack":
            parser.add_argument(
                "--retry-refused", action="store_true", help="pack again if photos were unreachable"
            )
            parser.set_defaults(call=commands.pack)
            _with_verify(subparsers)
        if stage == "embed":
            parser.add_argument(
                "--encoder", metavar="URI_OR_HUB_ID", help="embed with this bundle or image model instead"
            )
            parser.add_argument(
                "--vectors", metavar="URI", help="take vectors that were made elsewhere (Parquet) instead"
            )
            parser.add_argument(
                "--to", metavar="NAME", help="the EmbeddingSet of --encoder or --vectors: embeddings/NAME"
            )
            parser.set_defaults(call=commands.embed)
        if stage == "index":
            only_one = parser.add_mutually_exclusive_group()
            only_one.add_argument(
                "--frontier",
                action="store_true",
                help="build no index; measure bytes and latency against quality by dimensions and encoding",
            )
            only_one.add_argument(
                "--embeddings", metavar="NAME", help="index embeddings/NAME, as indexes/NAME, instead"
            )
            parser.set_defaults(call=commands.index)


def _add_serve(subparsers: Any) -> None:
    serve = _command(subparsers, "serve", commands.serve, "serve encoder and index over HTTP until Ctrl-C")
    action = serve.add_mutually_exclusive_group()
    action.add_argument(
        "--switch",
        dest="action",
        action="store_const",
        const="switch",
        help="let the running service serve the encoder and the index that are published now",
    )
    action.add_argument(
        "--rollback",
        dest="action",
        action="store_const",
        const="rollback",
        help="let the running service serve what it served before",
    )
    action.add_argument(
        "--new-token", metavar="NAME", help="print a token and its entry for serve.tokens_file"
    )
    serve.add_argument(
        "--scope", choices=("read", "write", "admin"), default="read", help="scope of --new-token"
    )


def _add_bench(subparsers: Any) -> None:
    bench = subparsers.add_parser(
        "bench", help="speed and memory, compared with a baseline and a limit", description=_bench_help()
    )
    bench.add_argument("benchmark", choices=BENCHES, metavar="WHAT", help=", ".join(BENCHES))
    bench.add_argument(
        "words", metavar="CONFIG", nargs="*", default=[], help="a YAML file, then key=value settings"
    )
    bench.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    bench.add_argument(
        "--quick",
        action="store_true",
        help="a short run that only checks that it works",
    )
    bench.set_defaults(call=commands.bench, overrides=[])


def _command(
    subparsers: Any,
    name: str,
    call: Callable[[argparse.Namespace], int],
    summary: str,
    needs_config: bool = True,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=summary, description=summary)
    if name != "demo":
        parser.add_argument(
            "config", metavar="CONFIG", nargs=None if needs_config else "?", help="a YAML file"
        )
    if name != "submit":
        parser.add_argument(
            "overrides",
            metavar="key=value",
            nargs="*",
            default=[],  # without a default, argparse lists it among the required arguments
            help="settings that override the file",
        )
    parser.set_defaults(call=call, overrides=[])
    return parser


def _with_verify(subparsers: Any) -> None:
    summary = "check the shards of raysys, or any WebDataset, for damage"
    parser = subparsers.add_parser("verify", help=summary, description=summary)
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="a YAML file (for its ShardSets), or folders, tars, patterns, URIs; then key=value settings",
    )
    parser.add_argument(
        "--repair", metavar="OUT", help="write a clean copy there, with a ledger of lost samples"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(call=commands.verify, overrides=[])


def _with_output(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--dry-run", action="store_true", help="print what would be made, and why")
    return parser


def _bench_help() -> str:
    return "; ".join(f"{name}: {description}" for name, description in BENCHES.items())
