"""What pyproject.toml cannot say: a wheel carries the course's data inside the package, so that `mm.load()` works from it."""
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithData(build_py):
    """Copies data/ to mmcourse/data of a wheel; an editable installation reads data/ where it lies."""

    def run(self):
        super().run()
        if not self.editable_mode:
            shutil.copytree(Path(__file__).parent / "data", Path(self.build_lib) / "mmcourse" / "data", dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("*.md", "*.png", ".*"))


setup(cmdclass={"build_py": WithData})
