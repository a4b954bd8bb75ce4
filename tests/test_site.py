"""The site: a reference of all that is public, links that lead on in both places, and a README that PyPI can show."""

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import links
import papers
import pytest
import reference

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def made():
    found = reference.Reference(ROOT)
    return found, found.pages()


def test_all_that_is_public_is_documented(made):
    assert made[0].missing == []


@pytest.mark.parametrize(
    ("page", "holds"),
    [
        ("core.md", "### VP { #core.process.VP }"),
        ("core.md", "class VP(Process)"),
        (
            "core.md",
            "| `last`{ .name } | `float | None` | `None` | the time of the lowest level; None: the process's t\\_min |",
        ),
        ("core.md", "| `process`{ .name } | `Process` |"),  # a type without quotes
        ("core.md", "- `__call__(process: Process, steps: int) -> Times`"),  # a Protocol's, to be written
        ("core.md", "- `__call__(x_t: Image, t: Scalar, r: Scalar, *condition: Any) -> Image`"),  # a base's
        ("training.md", "| `step`{ .name } | `Array` | from 0 |"),  # of a NamedTuple
        ("nets.md", "| `heads`{ .name } | `int` | `1` | of each attention |"),
        ("config.md", "| `steps`{ .name } | `int` | `10000` | in all (may be another when a run is resumed) |"),
        ("config.md", "| `clip`{ .name } | `float | None` | `None` |"),
        ("configs.md", "[configs/mnist.py](../../configs/mnist.py)"),
        (
            "commands.md",
            "| `--guidance_interval LOW HIGH`{ .name } | guide only at noise levels sigma / alpha between these",
        ),
        ("commands.md", "Linspace (default: True): whether the last step goes to clean data at t = 0 |"),
        ("commands.md", "| `--accept_data`{ .name } |"),
        ("commands.md", "| `--likelihood`{ .name } |"),
    ],
)
def test_what_the_pages_hold(made, page, holds):
    assert holds in made[1][page]


def test_fields_come_as_init_takes_them():
    grids = reference.module(ROOT, "core.grids")
    fields = {node.name: grids.fields(node) for node in grids.public if isinstance(node, ast.ClassDef)}
    assert [field.name for field in fields["Karras"]] == ["first", "last", "to_data", "rho"]
    *_, power = fields["Quadratic"]
    assert (power.default, power.meaning) == ("2.0", fields["Uniform"][2].meaning)  # of the base, where it says none
    unet = reference.module(ROOT, "nets.unet")
    (net,) = (node for node in unet.public if node.name == "UNet")
    names = [field.name for field in unet.fields(net)]
    assert names[:2] == ["channels", "multipliers"]
    assert names[-1] == "attend_last"


def test_what_a_class_gives_its_objects_has_the_meaning_that_the_base_says():
    def attributes(place, name):
        owner = reference.module(ROOT, place)
        return {each.name: each for node in owner.public if node.name == name for each in owner.attributes(node)}

    base, jump = attributes("core.samplers.base", "Sampler"), attributes("core.samplers.jumps", "Jump")
    assert list(base) == ["needs_signal", "follows_ode", "corrects", "jumps", "only_to_data"]
    assert {name: each.default for name, each in jump.items()} == {"jumps": "True", "follows_ode": "True"}
    assert jump["jumps"].meaning == base["jumps"].meaning != ""
    assert attributes("core.samplers.ancestral", "DDIM") == {}  # its own are for its fields to say
    assert "walks" in attributes("core.few_steps", "FewSteps")


def test_every_config_and_every_module_has_its_place(made):
    shown = re.findall(r"^## (\w+)$", made[1]["configs.md"], re.MULTILINE)
    assert shown == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    order = re.findall(r"^## core\.(\w+)", made[1]["core.md"], re.MULTILINE)
    assert order[:3] == ["process", "predictions", "denoise"]  # as the first lines of core have it


def test_what_is_not_documented_is_named(tmp_path):
    (tmp_path / "jaxdiff" / "core").mkdir(parents=True)
    (tmp_path / "jaxdiff" / "core" / "__init__.py").write_text('"""Of `b` and a."""\n')
    bare = "class Bare(NamedTuple):\n    bare: int\n    said: int  # so\n"
    source = f'"""A."""\n\n\n{bare}\n\ndef _private(): ...\n\n\ndef said():\n    """Says x_t * 2."""\n'
    (tmp_path / "jaxdiff" / "core" / "a.py").write_text(source)
    (tmp_path / "jaxdiff" / "core" / "b.py").write_text("def free(): ...\n")
    found = reference.Reference(tmp_path)
    page = found.folder("core")
    assert "Says x\\_t \\* 2." in page
    assert page.index("## core.b") < page.index("## core.a")
    wanted = {f"jaxdiff.core.{name} has no docstring" for name in ("a.Bare", "b", "b.free")}
    assert set(found.missing) == wanted | {"jaxdiff.core.a.Bare says nothing of its field bare"}


@pytest.mark.parametrize(
    ("page", "link", "there"),
    [
        ("index.md", "docs/learn.md#the-words", "learn.md#the-words"),
        ("index.md", "RESULTS.md", "results.md"),
        ("learn.md", "../RESULTS.md#samplers", "results.md#samplers"),
        ("learn.md", "mixture.png", "mixture.png"),
        ("learn.md", "../jaxdiff/core/exact.py", f"{links.REPOSITORY}/blob/main/jaxdiff/core/exact.py"),
        ("reference/core.md", "../extending.md", "../extending.md"),
        ("learn.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("learn.md", "../nowhere.py", "../nowhere.py"),  # of which MkDocs complains
    ],
)
def test_links_lead_on(page, link, there):
    assert links.relinked(f"see [it]({link}), ![]({link})", page, ROOT) == f"see [it]({there}), ![]({there})"


def test_papers_are_listed_with_their_places():
    page = (ROOT / "docs" / "papers.md").read_text()
    assert papers.unlisted(page, ROOT) == []
    assert papers.unlisted(page.replace("| Ho et al. 2020 |", ""), ROOT) == ["docs/papers.md lacks Ho et al. 2020"]
    for two in ("Song et al. 2021", "Song et al. 2023", "Karras et al. 2024"):  # by first author and year
        assert [f"| {two}{letter} |" in page for letter in ("", "a", "b")] == [False, True, True]
    assert papers.unlisted(page.replace("2021b |", "2021 |"), ROOT) == ["docs/papers.md lacks Song et al. 2021b"]
    assert papers.NAMED.findall("by Tsitouras 2011, of December 2015") == ["Tsitouras 2011"]
    placed = papers.with_places(page, ROOT)
    assert "[core.samplers.ancestral](reference/core.md#core.samplers.ancestral)" in placed
    assert "|  |" not in placed  # each is named somewhere


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} | set(links.ABOVE.values())
    assert listed == pages | {
        f"reference/{name}"
        for name in (*map("{}.md".format, reference.FOLDERS), "config.md", "configs.md", "commands.md")
    }


@pytest.mark.skipif(find_spec("setuptools") is None, reason="setuptools is not here")
def test_the_readme_of_pypi_leads_to_the_code_host():
    script = "import setuptools, runpy; setuptools.setup = lambda **said: print(said['long_description']);"
    command = [sys.executable, "-c", f"{script} runpy.run_path('setup.py')"]  # setuptools wants to be before distutils
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    found = re.findall(r"(!?)\[[^\]]*\]\(([^)]*)\)", said)
    assert all(link.startswith("https://") for _, link in found)
    assert ("!", "https://github.com/jaxdiff/jaxdiff/raw/main/docs/mnist.png") in found
    assert ("", "https://github.com/jaxdiff/jaxdiff/blob/main/docs/learn.md") in found


def test_the_readme_is_read_at_once():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
