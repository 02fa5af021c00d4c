"""What a training says: rows for tables, curves for TensorBoard, a bar for people."""

import csv
from pathlib import Path

from tensorboardX import SummaryWriter

from pullback.files.beside import beside


class Log:
    """`training.csv`, `validation.csv` and TensorBoard events of one run. Rows past `start` are dropped first."""

    def __init__(self, out: Path, start: int) -> None:
        self.out = out
        for path in (out / "training.csv", out / "validation.csv"):
            if path.is_file():
                _cut(path, start)
        self.events = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1, write_to_disk=True)

    def row(self, name: str, update: int, values: dict[str, float]) -> None:
        """One line of `<name>.csv` and a point on each curve."""
        path = self.out / f"{name}.csv"
        new = not path.is_file()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["update", *values])
            writer.writerow([update, *(f"{value:.6g}" for value in values.values())])
        for key, value in values.items():
            self.events.add_scalar(f"{name}/{key}", value, update)

    def close(self) -> None:
        self.events.close()


def _cut(path: Path, start: int) -> None:
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    with beside(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in rows if row and int(row[0]) <= start)])
