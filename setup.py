"Packaging for starscape: every value is read from `settings.ini`, the one place settings live."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(here / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]
extra_suffix = "_requirements"
readme = here / "README.md"

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    license=settings["license"].upper(),
    keywords=settings["keywords"],
    packages=find_packages(include=[settings["lib_path"], settings["lib_path"] + ".*"]),
    package_data={settings["lib_name"]: ["static/*", "reference/*", "example_zoo/*"]},
    install_requires=settings["requirements"].split(),
    extras_require={
        key.removesuffix(extra_suffix): value.split() for key, value in settings.items() if key.endswith(extra_suffix)
    },
    python_requires=">=" + settings["min_python"],
    entry_points={
        "console_scripts": settings["console_scripts"].split(),
        "nbdev": [f"{settings['lib_name']}={settings['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
