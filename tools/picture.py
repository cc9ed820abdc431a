"""The picture in README.md: what a browser shows of the demo's report.

    make demo && python tools/picture.py demo/report.html nbs/images/report.png
"""
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def main(report, picture):
    Path(picture).parent.mkdir(exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1180, "height": 900}, color_scheme="light", offline=True)
        page.goto(Path(report).resolve().as_uri())
        page.wait_for_selector("html[data-ready=true]")
        page.get_by_text("Aligned", exact=True).click()
        page.wait_for_timeout(1000)
        page.locator(".starscape").first.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
