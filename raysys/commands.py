"""What each command of `cli.py` does: arguments in, results on `arguments.out`, an exit status back."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from pathlib import Path

import raysys
from raysys import storage
from raysys.config import Config, load_config
from raysys.encoder import hub_limits
from raysys.pipeline import FRONTIER, STAGES, plan_stages, run_stages
from raysys.terminal import print_line
from raysys.tracking.logs import log


def run_stage(arguments: argparse.Namespace) -> int:
    """One stage."""
    return _run_stages(arguments, [arguments.stage])


def pack(arguments: argparse.Namespace) -> int:
    """`pack`, with its own option."""
    if arguments.retry_refused:
        arguments.overrides.append("pack.retry_refused=true")
    return run_stage(arguments)


def embed(arguments: argparse.Namespace) -> int:
    """`embed`, with its own options."""
    for name in ("encoder", "vectors", "to"):
        if (value := getattr(arguments, name)) is not None:
            arguments.overrides.append(f"embed.{name}={json.dumps(value)}")
    return run_stage(arguments)


def index(arguments: argparse.Namespace) -> int:
    """`index`, or the frontier."""
    if arguments.embeddings is not None:
        arguments.overrides.append(f"index.embeddings={json.dumps(arguments.embeddings)}")
    return _run_stages(arguments, [FRONTIER if arguments.frontier else "index"])


def verify(arguments: argparse.Namespace) -> int:
    """Check ShardSets or any WebDataset."""
    from raysys.verify import stage  # takes a second to import

    stage.run(arguments.paths, arguments.overrides, arguments.repair, arguments.json, arguments.out)
    return 0


def run_all(arguments: argparse.Namespace) -> int:
    """Every stage."""
    return _run_stages(arguments, list(STAGES))


def _run_stages(arguments: argparse.Namespace, names: list[str]) -> int:
    config = _load(arguments.config, arguments.overrides)
    if arguments.dry_run:
        for line in plan_stages(config, names):
            print_line(line, arguments.out)
        return 0
    outcomes = list(run_stages(config, names))
    if arguments.json:
        made = [dataclasses.asdict(outcome) for outcome in outcomes]
        answer = made[0] if len(made) == 1 else {"uri": outcomes[-1].uri, "stages": made}
        print(json.dumps(answer), file=arguments.out)
    else:
        print_line(outcomes[-1].uri, arguments.out)
    return 0


def _load(path: str, overrides: list[str]) -> Config:
    config = load_config(path, overrides)
    storage.configure(config.storage)
    hub_limits.configure(config.hub)
    storage.require_folder(config.root)
    return config


def serve(arguments: argparse.Namespace) -> int:
    """Serve over HTTP until a signal arrives, or let the running service change what it serves.

    With `--new-token`, only print a token.
    """
    config = _load(arguments.config, arguments.overrides)
    if arguments.new_token is not None:
        return _print_token(arguments)
    if arguments.action is not None:
        from raysys.serve import admin

        print_line(admin.summary(admin.request_switch(config.serve, arguments.action)), arguments.out)
        return 0
    with _ingress_configured(config):
        from raysys.serve import app

        with app.served(config) as address:
            print_line(address, arguments.out)
            app.wait_for_stop()
    return 0


def _print_token(arguments: argparse.Namespace) -> int:
    """The token on stderr, which is shown once, and its entry for the tokens file on stdout."""
    from raysys.serve.tokens import as_yaml, new_token

    text, token = new_token(arguments.new_token, arguments.scope)
    log.info("    serve  token of '%s', shown only here: %s", token.name, text)
    print_line(as_yaml(token), arguments.out)
    return 0


def _ingress_configured(config: Config) -> contextlib.AbstractContextManager[None]:
    from raysys.cluster import session
    from raysys.serve import ingress

    return ingress.configured(config, starts_cluster=not session.may_grow(config.ray))


def run_demo(arguments: argparse.Namespace) -> int:
    """Every stage on the drawn catalogue, then the page."""
    config = _load(str(demo_config()), arguments.overrides)
    exits = arguments.exit or not arguments.out.isatty()
    with _ingress_configured(config):
        from raysys import demo

        demo.run(config, exits=exits, out=arguments.out)
    return 0


def demo_config() -> Path:
    """`configs/demo.yaml` of the checkout, or of the installed package."""
    return _shipped_config("demo.yaml")


def _shipped_config(name: str) -> Path:
    package = Path(raysys.__file__).parent
    places = (package / "configs" / name, package.parent / "configs" / name)
    return next((place for place in places if place.exists()), places[-1])


def submit(arguments: argparse.Namespace) -> int:
    """Run a stage as a job on a Ray cluster."""
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


def bench(arguments: argparse.Namespace) -> int:
    """Run one benchmark."""
    words = [*arguments.words, *arguments.overrides]
    path = words.pop(0) if words and "=" not in words[0] else str(_shipped_config("bench.yaml"))
    from raysys.bench import runner
    from raysys.bench.config import QUICK, BenchRunConfig

    config = load_config(path, [*(QUICK if arguments.quick else ()), *words], BenchRunConfig)
    report = runner.run(arguments.benchmark, config, ["raysys", *sys.argv[1:]])
    if arguments.json:
        print(json.dumps(report.as_json()), file=arguments.out)
    else:
        report.print_table(arguments.out)
    return 0


def show_config(arguments: argparse.Namespace) -> int:
    """Print the configuration, its schema or its reference."""
    if arguments.schema:
        print(json.dumps(Config.model_json_schema(), indent=2), file=arguments.out)
        return 0
    if arguments.reference:
        from raysys.config.reference import reference

        print(reference(), end="", file=arguments.out)
        return 0
    import yaml

    config = load_config(arguments.config, arguments.overrides) if arguments.config else Config()
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    print(text, end="", file=arguments.out)
    return 0
