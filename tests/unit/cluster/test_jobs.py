"""The stages that can be submitted, and the names of their jobs."""

from raysys import cli, pipeline
from raysys.cluster import jobs


def test_every_stage_and_run_can_be_submitted() -> None:
    assert {"run", *pipeline.STAGES} <= set(jobs.STAGES)


def test_every_submittable_stage_is_a_command() -> None:
    help_text = cli._parser().format_help()
    commands = [line.split()[0] for line in help_text.splitlines() if line.startswith("    ")]
    assert [stage for stage in jobs.STAGES if stage not in commands] == []


def test_same_work_has_the_same_job_name_and_other_work_another() -> None:
    first = jobs.job_stem("train", "siglip", "name: siglip\n")
    assert first == jobs.job_stem("train", "siglip", "name: siglip\n")
    assert first.startswith("raysys-train-siglip-")
    assert len(first.removeprefix("raysys-train-siglip-")) == 10
    others = {
        jobs.job_stem("embed", "siglip", "name: siglip\n"),
        jobs.job_stem("train", "other", "name: siglip\n"),
        jobs.job_stem("train", "siglip", "name: siglip\ntrain: {epochs: 2}\n"),
    }
    assert len(others | {first}) == 4
