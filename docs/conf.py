"How Sphinx builds the pages that build.py wrote. Nothing here may make a page ask another host for anything."
from configparser import ConfigParser
from pathlib import Path

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(here.parent / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

project = settings["title"]
author = settings["author"]
copyright = settings["copyright"]
release = version = settings["version"]
language = "en"

extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx_copybutton"]
nb_execution_mode = "off"  # the outputs are those in the committed notebooks
nb_merge_streams = True
myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
myst_update_mathjax = False
mathjax_path = "katex/katex.min.js"  # only on pages with mathematics; site.js calls it
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "pydata_sphinx_theme"
html_title = project
html_logo = html_favicon = str(here / "_static" / "logo.svg")
html_static_path = [str(here / "_src" / "_static")]  # _static, and the plotly.js of the installed plotly
templates_path = [str(here / "_templates")]
html_css_files = ["katex/katex.min.css", "site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_copy_source = False
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": project},
    "github_url": settings["git_url"],
    "navbar_start": ["navbar-logo", "version"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "navigation_with_keys": False,
    "pygments_light_style": "tango",
    "pygments_dark_style": "nord",
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
}
html_sidebars = {"index": [], "changelog": [], "contributing": [], "reference": [], "**": ["sidebar-nav-bs"]}


def add_plotly(app, page_name, template_name, context, doctree):
    "plotly.js is large: only a page that shows a figure or a panel loads it."
    body = context.get("body", "")
    if 'data-figure="' in body or 'data-panel="' in body:
        app.add_js_file("plotly.min.js", priority=100)


def setup(app):
    app.connect("html-page-context", add_plotly)
