"""One file for each measured table: `mmcourse study chNN_name` writes data/results/chNN_name.json.

Every one is a `Study`: a plan, and named jobs that measure a row each. A row is saved as soon as it is there;
a study that was stopped goes on with what its file lacks. What the studies of one chapter share is in
`_chNN.py`.
"""
import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from mmcourse.files import locked, read_json, write_text
from mmcourse.paths import RESULTS, cache_dir
from mmcourse.recipes import finished as finished


@dataclass(frozen=True)
class Job:
    """What is measured at a stretch: a row, or several that belong together.

    Args:
        name: what `--only` looks for.
        measure: `measure()` gives the row, anything that JSON can hold.
        section: where the row lies in the file, keys from the outside in.
        key: the row's key there, by default the name; or, if the section is a list of rows, the fields by
            which this job's rows are known in it (`measure` may then give several, in a list).
        seed: the seed that decides it, if the study has several.
        derived: computed from the rows that are already there: `measure(result)`.
        optional: a row that the table may lack: measured only if `--only` asks for it.
    """
    name: str
    measure: Callable
    section: tuple[str, ...] = ("rows",)
    key: str | dict | None = None
    seed: int | None = None
    derived: bool = False
    optional: bool = False

    @property
    def listed(self) -> bool:
        """Whether its section is a list."""
        return isinstance(self.key, dict)

    @property
    def place(self) -> str:
        """The row's key in a section that is a dict."""
        return self.name if self.key is None else self.key

    def rows(self, result):
        """The dict or list that its row lies in; empty if there is none yet."""
        for step in self.section:
            result = result.get(step, {})
        return result

    def marks(self, row: dict) -> bool:
        """Whether a row of a list is this job's."""
        return all(row.get(name) == value for name, value in self.key.items())

    def done(self, result) -> bool:
        """Whether the result holds its row."""
        rows = self.rows(result)
        return any(map(self.marks, rows)) if self.listed else self.place in rows

    def put(self, result, row) -> None:
        """Add its row to the result."""
        for depth, step in enumerate(self.section, 1):
            result = result.setdefault(step, [] if self.listed and depth == len(self.section) else {})
        if self.listed:
            result.extend(row if isinstance(row, list) else [row])
        else:
            result[self.place] = row

    def drop(self, result) -> None:
        """Take its row out of the result."""
        rows = self.rows(result)
        if isinstance(rows, list):
            rows[:] = [row for row in rows if not self.marks(row)]
        elif not self.listed:
            rows.pop(self.place, None)


@dataclass(frozen=True)
class Study:
    """Named jobs under one plan, and the file that holds what they measured.

    Args:
        name: chNN_name: the module's name, and that of the file in data/results.
        plan: a dataclass with what decides the numbers: steps, sizes, rates.
        toy: the same, so small that all is done in seconds: for tests and a first look.
        jobs: `jobs(plan, seeds)` -> a list of `Job`. Cheap: nothing is loaded before a job measures.
        head: `head(plan)` -> what stands in the file beside the rows: the plan, and which checkpoints were
            measured. Rows under another head are not comparable with new ones. (In a file that is a list of
            rows, each row has these fields.)
        seeds: those of a run without `--seeds`; None: the plan has the only one.
        outdated: `outdated(result, head)` takes out of a result what a new checkpoint has made untrue, and
            brings its head up to date; None: the result is refused as a whole then.
        minutes: whether the file has the CPU minutes of all its rows, as `cpu_minutes`.
    """
    name: str
    plan: object
    toy: object
    jobs: Callable[[object, Sequence[int]], list[Job]]
    head: Callable[[object], dict] = lambda plan: {"plan": asdict(plan)}
    seeds: tuple[int, ...] | None = None
    outdated: Callable | None = None
    minutes: bool = False

    @property
    def file(self) -> Path:
        """The committed table."""
        return RESULTS / f"{self.name}.json"

    def run(self, argv: Sequence[str] | None = None, file=None):
        """Measure what the file lacks, or what the options ask for; returns all that the file then holds.

        Args:
            argv: the options (`--help`). file: in place of data/results/NAME.json.
        """
        import torch
        args = self.parser().parse_args([] if argv is None else argv)
        plan, folder = (self.toy, cache_dir() / "toy") if args.toy else (self.plan, RESULTS)
        file = Path(file or folder / f"{self.name}.json")
        seeds = args.seeds if self.seeds else ()
        jobs = self.jobs(plan, sorted({*(self.seeds or ()), *seeds}))
        wanted = [job for job in select(jobs, args.only) if (job.seed is None or job.seed in seeds)
                  and (args.only or not job.optional)]
        result = self.saved(file, plan, jobs, forget=args.fresh and not args.only)
        if args.fresh:
            for job in wanted:
                job.drop(result)
        torch.set_num_threads(args.threads)
        self.measure([job for job in wanted if not job.done(result)], jobs, result, file,
                     read=partial(self.saved, file, plan, jobs), anew=args.fresh and not args.only)
        return result

    def saved(self, file: Path, plan, jobs: list[Job], forget: bool = False):
        """What a file holds that was made under this plan, or no rows. ValueError for a file of another
        plan."""
        head = json.loads(json.dumps(self.head(plan)))                     # as it comes back from a file
        listed = any(job.listed and job.section == () for job in jobs)
        if forget or not file.exists():
            return [] if listed else head
        result = read_json(file)
        if self.outdated:
            self.outdated(result, head)
        for holder in result if listed else [result]:
            other = {name: holder.get(name) for name, value in head.items() if holder.get(name) != value}
            if other:
                raise ValueError(f"{file} was made with {other}, and this would be "
                                 f"{({name: head[name] for name in other})}: --fresh measures all of it again")
        return result

    def measure(self, todo: list[Job], jobs: list[Job], result, file: Path, read: Callable, anew: bool) -> None:
        """Do some jobs, one after another; the file is whole after each. What another process has put there
        meanwhile stays (`read()` gives it), unless the file is begun `anew`."""
        from tqdm.auto import tqdm
        if not todo:
            spare = [f"{job.name}, seed {job.seed}" if job.seed is not None else job.name
                     for job in jobs if job.optional and not job.done(result)]
            print(f"{self.name}: nothing to do, {file} holds every row of the plan (--fresh measures again)",
                  *["optional and not measured, --only NAME does it:", *spare] if spare else [], sep="\n  ")
            return
        bar = tqdm(todo, desc=self.name, unit="row")
        for job in bar:
            bar.set_postfix_str(job.name)
            start = time.process_time()
            row = job.measure(result) if job.derived else job.measure()
            with locked(file):
                if file.exists() and not anew:
                    take_over(result, read())
                self.put(job, row, (time.process_time() - start) / 60, jobs, result, file)
            anew = False
            bar.write(f"{job.name}{'' if job.seed is None else f', seed {job.seed}'}: {brief(row)}")

    def put(self, job: Job, row, minutes: float, jobs: list[Job], result, file: Path) -> None:
        """Write a result with the row that a job has given, in the order of the jobs."""
        job.drop(result)
        job.put(result, row)
        arrange(result, jobs)
        if self.minutes:
            result["cpu_minutes"] = round(result.get("cpu_minutes", 0) + minutes, 2)
        try:
            text = render(result)
        except ValueError:
            raise ValueError(f"{job.name}: a number is not finite in {row}") from None
        write_text(file, text + "\n")

    def parser(self) -> argparse.ArgumentParser:
        """The options that every study has."""
        names = dict.fromkeys(job.name for job in self.jobs(self.plan, self.seeds or ()))
        parser = argparse.ArgumentParser(
            prog=f"mmcourse study {self.name}", formatter_class=argparse.RawDescriptionHelpFormatter,
            description=f"Measure the rows that data/results/{self.name}.json lacks.",
            epilog="\n  ".join(["rows:", *names]))
        parser.add_argument("--only", nargs="+", metavar="NAME",
                            help="rows of these names, or whose names contain them")
        if self.seeds:
            parser.add_argument("--seeds", type=int, nargs="+", default=list(self.seeds),
                                help="default: %(default)s")
        parser.add_argument("--fresh", action="store_true", help="measure again what is there")
        parser.add_argument("--toy", action="store_true",
                            help=f"a size that takes seconds and means nothing, into CACHE/toy/{self.name}.json")
        parser.add_argument("--threads", type=int, default=1, help="default: 1, as what is committed was measured")
        return parser


def take_over(result, content) -> None:
    """Make a result, a dict or a list, what was read from its file."""
    result.clear()
    (result.extend if isinstance(result, list) else result.update)(content)


def select(jobs: list[Job], only: Sequence[str] | None) -> list[Job]:
    """The jobs of these names, or whose names contain one where none is called so. ValueError if there is
    none."""
    chosen: list[Job] = []
    for name in only or ():
        found = [job for job in jobs if job.name == name] or [job for job in jobs if name in job.name]
        if not found:
            names = ", ".join(dict.fromkeys(job.name for job in jobs))
            raise ValueError(f"no row is called {name!r}; the rows are {names}")
        chosen += found
    return [job for job in jobs if job in chosen] if only else jobs


def arrange(result, jobs: list[Job]) -> None:
    """Rows in the order of the jobs, whenever they were measured; those of no job come first, as they
    were."""
    for section in dict.fromkeys(job.section for job in jobs):
        own = [job for job in jobs if job.section == section]
        rows = own[0].rows(result)
        if isinstance(rows, list):
            rows.sort(key=lambda row: next((i for i, job in enumerate(own) if job.marks(row)), -1))
        elif section and rows:
            for job in own:
                if job.place in rows:
                    rows[job.place] = rows.pop(job.place)


def render(content, indent: int = 0, width: int = 110) -> str:
    """JSON for people and for `git diff`: what fits a line stays on one, and so does a list of numbers."""
    line = json.dumps(content, allow_nan=False)
    if not isinstance(content, dict | list) or not content or indent + len(line) <= width:
        return line
    if isinstance(content, list):
        if not any(isinstance(value, dict | list | str) for value in content):
            return line
        parts = [render(value, indent + 1) for value in content]
    else:
        parts = [f"{json.dumps(name)}: {render(value, indent + 1)}" for name, value in content.items()]
    inside = ",\n".join(" " * (indent + 1) + part for part in parts)
    return f"{line[0]}\n{inside}\n{' ' * indent}{line[-1]}"


def brief(row) -> str:
    """What the terminal shows of a row: neither pictures nor curves."""
    if isinstance(row, dict):
        row = {name: value for name, value in row.items()
               if len(value if isinstance(value, list | dict) else ()) < 5 and len(str(value)) < 100}
    text = str(row)
    return text if len(text) < 400 else text[:400] + " ..."
