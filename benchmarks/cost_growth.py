"""How the cost of our joint training step grows: with length, vocabulary, batch, encoder and processes.

    python benchmarks/cost_growth.py --work_dir WORK [--only length,batch]

All four objectives, no dropout, AdamW; what is not varied is that of `throughput.py`'s tiny shape (128 x 4, generator
half as wide, 16 rows of 128 tokens, vocabulary 10,000). Every point runs in a process of its own, so that the peak of
its memory is its own. Of a step are told: seconds, tokens/s, FLOPs that it needs (counted) and the part of the matrix-
product peak that they make, and memory beside what the forward pass keeps (counted). Where utilisation falls as a point
grows, time grows faster than the arithmetic: such points are named. Processes are real runs of `spanelectra pretrain`
under torchrun and gloo; so is one of `base` at 512 tokens, the rest of which asks what fits into a machine of 8 GB.

Points follow one another, minutes apart, and do not take turns: what else the machine did hits one of them alone. The
load before each is kept beside it. Points are appended to docs/cost-growth.json as they come, and are not measured
again with the same settings on the same machine, unless ``--again`` says so. Then come `docs/cost-growth.md`, a section
an axis, and its pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cost_points import Point, make_points, measure_run, measure_step

ROOT = Path(__file__).parent.parent
AXES = ("length", "vocabulary", "batch", "encoder", "processes", "base")


def measure(point: Point, arguments: argparse.Namespace, environment: dict[str, Any]) -> dict[str, Any]:
    """A point in a process of its own, with what it was measured under."""
    from checked_out import checked_out

    load = os.getloadavg()[0]
    if point.processes:
        # a step of base takes many seconds
        steps, windows = (1, 2) if point.axis == "base" else (arguments.run_steps, 3)
        found = measure_run(point, arguments.work_dir, steps, windows)
    else:
        command = [sys.executable, __file__, "--point", json.dumps(dataclasses.asdict(point))]
        command += ["--seconds", str(arguments.seconds), "--steps", str(arguments.steps)]
        variables = {**os.environ, "OMP_NUM_THREADS": str(point.threads)}
        finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables)
        found = json.loads(finished.stdout.splitlines()[-1])
    about = {"load": load, "environment": environment, **checked_out("src/spanelectra")}
    return {"point": dataclasses.asdict(point), **found, **about}


def machine(environment: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for points to stand on one curve: processor, cores and the libraries that compute."""
    versions = {name: environment["versions"].get(name) for name in ("python", "torch", "transformers")}
    return {"processor": environment["processor"], "cores": environment["cores"], **versions}


def wanted(arguments: argparse.Namespace, finished: dict[str, Any], environment: dict[str, Any]) -> list[Point]:
    """The points to measure: asked for, and not finished with these settings on this machine."""
    labels = arguments.labels.split(";") if arguments.labels else None

    def is_finished(point: Point) -> bool:
        found = finished.get(point.name)
        if found is None or found["point"] != dataclasses.asdict(point):
            return False
        return machine(found["environment"]) == machine(environment)

    return [
        point
        for point in make_points(arguments.threads)
        if point.axis in arguments.only.split(",") and (labels is None or point.label in labels)
        if arguments.again or not is_finished(point)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, help="for prepared rows and runs; by default one that is deleted")
    parser.add_argument("--only", default=",".join(AXES), help="axes, separated by commas")
    parser.add_argument("--labels", help="only points whose labels these are, separated by semicolons")
    parser.add_argument("--again", action="store_true", help="measure what is finished once more")
    parser.add_argument("--seconds", type=float, default=3.0, help="measure each step for so long")
    parser.add_argument("--steps", type=int, default=20, help="and so many times at most")
    parser.add_argument("--run_steps", type=int, default=10, help="steps of a line of a real run's log")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="where JSON, page and pictures go")
    parser.add_argument("--page_only", action="store_true", help="write page and pictures from what is finished")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(measure_step(Point(**json.loads(arguments.point)), arguments.seconds, arguments.steps)))
        return
    from cost_growth_page import write_page
    from spanelectra.atomic_files import write_text
    from spanelectra.environment import describe_environment

    file = arguments.out / "cost-growth.json"
    finished = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"points": {}}
    with tempfile.TemporaryDirectory() as temporary:
        arguments.work_dir = arguments.work_dir or Path(temporary)
        environment = describe_environment()
        # a point has the threads that it was given, not those of this process
        del environment["threads"]
        for point in [] if arguments.page_only else wanted(arguments, finished["points"], environment):
            print(f"{point.name} …", file=sys.stderr)
            finished["points"][point.name] = measure(point, arguments, environment)
            write_text(file, json.dumps(finished, indent=1) + "\n")
    names = [point.name for point in make_points(arguments.threads)]
    finished["points"] = {name: finished["points"][name] for name in names if name in finished["points"]}
    write_page(finished, arguments.out)


if __name__ == "__main__":
    main()
