"""The rows of accelerator.py: written as JSON after each stage, judged by its goals, shown as a table of markdown."""

import json
import math
import sys
from pathlib import Path
from typing import Any

SHARES = {"DDPM": 0.25, "DDPM++": 0.25, "DiT-B": 0.40}  # of peak: the goals
RATIO = 1.2  # of torch.compile
BY = ("torch.compile", "PyTorch")
Row = dict[str, Any]


class Report:
    """What has been found so far."""

    def __init__(self, path: Path):
        self._path, self._machine, self._toy = path, Row(), False
        self._rows: list[Row] = []

    def about(self, machine: Row, toy: bool) -> None:
        self._machine, self._toy = machine, toy
        self._write()

    def add(self, name: str, found: Row, seconds: float, fact: bool = False) -> None:
        row = {"name": name, "result": judged(found), "seconds": seconds, "fact": fact, **found}
        self._rows.append(row)
        print(f"{name}: {said(row)} ({seconds:.0f} s)", file=sys.stderr, flush=True)
        self._write()

    @property
    def right(self) -> bool:
        """Whether all facts hold: none fails, none could not be checked."""
        return all(row["result"] in ("pass", "absent") for row in self._rows if row["fact"])

    def rows(self) -> list[Row]:
        """With what follows from several of them."""
        return [row | self._compared(row) for row in self._rows]

    def markdown(self) -> str:
        about = ", ".join(f"{name} {value}" for name, value in self._machine.items() if value is not None)
        lines = [about, "", "| | result | number | goal | s |", "|" + " --- |" * 5]
        for row in self.rows():
            lines.append(
                f"| {row['name']} | {row['result']} | {said(row)} | {row.get('goal', '')} | {row['seconds']:.0f} |"
            )
        return "\n".join(lines)

    def _write(self) -> None:
        content = {"toy": self._toy, "machine": self._machine, "rows": self.rows()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(plain(content), indent=1, allow_nan=False) + "\n")
        new.replace(self._path)  # at no time is there half a file

    # --- what follows -------------------------------------------------------------------------------------------------

    def _named(self, name: str, field: str) -> float | None:
        return next((row.get(field) for row in self._rows if row["name"] == name), None)

    @property
    def peak(self) -> float | None:
        """In TFLOP/s, as known or else as measured."""
        return self._machine.get("known_TFLOPs") or self._named("product", "TFLOPs")

    def _compared(self, row: Row) -> Row:
        """The share of the peak; of jaxdiff also how it stands to torch.compile, and to the goals."""
        rate, name = row.get("images_per_second"), row["name"]
        if rate is None:
            return {"share_of_known_peak": self._share(row)} if "TFLOPs" in row else {}
        what = next((name.removesuffix(f", {by}") for by in BY if name.endswith(by)), name)
        flops, peak = self._named(what, "flops_an_image"), self.peak
        if self._toy:  # whose networks are not the same, and compute next to nothing
            return {"goal": "none at toy size" if what == name else ""}
        found = {"share_of_peak": 1e-12 * rate * flops / peak if flops and peak else None}
        if what != name:
            return found
        other = self._named(f"{name}, torch.compile", "images_per_second")
        found["times_torch_compile"] = rate / other if other else None
        return found | {"goal": goal(what.partition(",")[0], **found)}

    def _share(self, product: Row) -> float | None:
        known = self._machine.get("known_TFLOPs")
        return product["TFLOPs"] / known if known else None


def judged(found: Row) -> str:
    kind = next((kind for kind in ("error", "skipped", "absent") if kind in found), None)
    if kind is not None or "limit" not in found:
        return kind or "measured"
    return "pass" if found["number"] <= found["limit"] else "FAIL"


def goal(network: str, share_of_peak: float | None, times_torch_compile: float | None) -> str:
    """What was wanted, and whether it is so."""
    wanted = SHARES[network]
    parts = [f"{wanted:.0%} of peak: {_met(share_of_peak, wanted)}"]
    return "; ".join([*parts, f"{RATIO} x torch.compile: {_met(times_torch_compile, RATIO)}"])


def _met(found: float | None, wanted: float) -> str:
    return "not known" if found is None else "met" if found >= wanted else "missed"


def said(row: Row) -> str:
    """What was found, in words."""
    for kind in ("error", "skipped", "absent"):
        if kind in row:
            return str(row[kind]).replace("|", "/")
    if "limit" in row:
        return f"{row['number']:.2g} {row['unit']}, at most {row['limit']:g}" + f" ({row['note']})" * bool(row["note"])
    if "TFLOPs" in row:
        share = row.get("share_of_known_peak")
        return f"{row['TFLOPs']:.3g} TFLOP/s" + (f", {share:.0%} of what is known of it" if share else "")
    if "images_per_second" in row:
        return _speed(row)
    return str(row.get("summary", f"{row.get('kind')}, {row.get('backend')}"))


def _speed(row: Row) -> str:
    share, times = row.get("share_of_peak"), row.get("times_torch_compile")
    parts = [f"{row['images_per_second']:,.0f} images/s in batches of {row['batch']}"]
    parts += [f"{share:.1%} of peak"] if share else []
    parts += [f"{times:.2f} x torch.compile"] if times else []
    parts += [f"compiled in {row['compile_seconds']:.0f} s"] if row["compile_seconds"] > 0.5 else []
    return ", ".join(parts)


def plain(value: Any) -> Any:
    """What JSON has no word for, such as NaN, as text."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
