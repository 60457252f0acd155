"""What an installation gets: every file of the product beside its modules."""

import subprocess
import tomllib

from tests.shared import ROOT

PACKAGES = ("objectives", "results", "search")


def test_every_file_of_the_product_is_package_data() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    installed = {
        path
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
        if path.is_file()
    }
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    files = {ROOT / name for name in listed.stdout.splitlines() if not name.endswith(".py")}
    assert files == installed
