"""A report in Chromium: pictures are decoded, links work, and nothing is requested."""

from pathlib import Path

import scanseg
from tests.browser import chromium


def test_a_report_is_complete_without_a_network(make_predictions, tmp_path: Path):
    predictions, references, images = make_predictions()
    output = tmp_path / "report.html"
    scanseg.report(predictions, output, references=references, images=images, num_workers=0, progress=False)
    requests: list[str] = []
    messages: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.goto(output.as_uri())
        broken = page.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
        number = page.evaluate("document.images.length")
        width = page.evaluate("document.documentElement.scrollWidth")
        page.click("nav a:has-text('Confusion')")
        top = page.evaluate("document.getElementById('confusion').getBoundingClientRect().top")
        folded = page.locator("details table").first
        was_visible = folded.is_visible()
        page.click("summary >> nth=0")
        is_visible = folded.is_visible()
        cells = page.locator("#scores table").first.locator("tbody tr").count()
    outside = [each for each in requests if not each.startswith((output.as_uri(), "data:"))]
    assert (outside, messages) == ([], [])
    assert (broken, number) == (0, 18)
    assert width <= 1200
    assert 0 <= top < 200
    assert (was_visible, is_visible) == (False, True)
    assert cells == 2
