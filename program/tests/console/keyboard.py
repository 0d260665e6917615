"""Row C9: the console by the keyboard alone, and for readers of every kind."""
import os, subprocess, sys
from browser import *

def axe():
    source = os.path.join(AXE, "node_modules/axe-core/axe.min.js")
    if not os.path.exists(source):
        os.makedirs(AXE, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", AXE, "axe-core@4"], check=True)
    with open(source) as file: return file.read()

def c9(browser):
    source = axe()
    with Site() as site:
        keys = [site.orphan() for _ in range(2)]
        site.send("/orders", "done")
        with Page(browser, site.url, token=None) as page:
            page.keyboard.type(OPERATOR)
            page.keyboard.press("Enter")
            page.get_by_role("navigation").wait_for()
            page.keyboard.press("g")
            page.keyboard.press("o")
            page.locator("tbody tr").nth(1).wait_for()
            tab_to(page, lambda: page.evaluate("document.activeElement.textContent === 'Resolve'"))
            key = page.evaluate("document.activeElement.ariaLabel").removeprefix("Resolve ")
            page.keyboard.press("Enter")
            dialog = page.get_by_role("dialog")
            dialog.wait_for()
            tab_to(page, lambda: page.evaluate("document.activeElement.type === 'radio'"))
            page.keyboard.press("Space")
            page.keyboard.press("ArrowUp"), page.keyboard.press("ArrowDown")
            page.keyboard.press("Tab")
            page.keyboard.type("INC-5: by hand")
            page.keyboard.press("Tab")
            page.keyboard.type(dialog.locator("label", has_text="To confirm").inner_text()[-4:])
            page.keyboard.press("Enter")
            expect(dialog).to_contain_text("Released: the next retry runs.")
            page.keyboard.press("Enter")
            expect(page.get_by_role("dialog")).to_have_count(0)
            expect(row_of(page, key)).to_have_count(0)
            check("C9 from login to result by keys alone", site.api("GET", "orphans")[1]["total"] == 1)
            check("C9 focus is not lost with the row", page.evaluate("document.activeElement !== document.body"))
            for place in "the page", "a checkbox":
                if place == "a checkbox": page.locator("tbody").get_by_role("checkbox").first.focus()
                page.keyboard.press("?")
                expect(page.get_by_role("dialog"), f"? in {place}").to_contain_text("Look up")
                page.keyboard.press("Escape")
            page.keyboard.press("/")
            page.keyboard.type("?gk")
            text = page.get_by_label("Text")
            check("C9 letters in a field are letters", (text.input_value(), page.get_by_role("dialog").count()) == ("?gk", 0) and page.url.endswith("#/orphans"), page.url)
            text.fill("")
            go(page, "overview")
            page.locator(".plot svg").first.wait_for()
            slider = page.get_by_role("slider").first
            until(lambda: int(slider.get_attribute("aria-valuemax") or 0), lambda most: most > 1)
            slider.focus()
            page.keyboard.press("ArrowLeft")
            left = slider.get_attribute("aria-valuetext")
            page.keyboard.press("Home")
            check("C9 arrow keys read a chart", "executed" in left and left != slider.get_attribute("aria-valuetext"), left)
            page.get_by_role("button", name="as table").first.click()
            check("C9 a chart is also a table", page.locator("figure table").first.locator("tbody tr").count() > 0)
            page.locator("figure button", has_text="as table").first.click()
        for theme in "light", "dark":
            for width in WIDTHS:
                with Page(browser, site.url, theme, width, token=None) as page:
                    found = {"login": violations(page, source)}
                    page.get_by_label("Token").fill(OPERATOR)
                    page.keyboard.press("Enter")
                    page.get_by_role("navigation").wait_for()
                    for screen in SCREENS:
                        go(page, screen)
                        page.wait_for_timeout(400)
                        if screen == "lookup":
                            page.get_by_label("Scope").fill("acme")
                            page.get_by_label("Key", exact=True).fill("done")
                            page.keyboard.press("Enter")
                            page.get_by_text("gets the stored response").wait_for()
                        found[screen] = violations(page, source)
                    go(page, "orphans")
                    page.get_by_role("button", name="Resolve").first.click()
                    page.get_by_role("radio", name="It happened").check()
                    page.get_by_role("button", name="Complete it").click()
                    found["dialog"] = violations(page, source)
                    page.keyboard.press("Escape")
                    found = {screen: bad for screen, bad in found.items() if bad}
                    check(f"C9 axe finds nothing serious, {theme}, {width} px", not found, found)

def tab_to(page, there):
    for _ in range(60):
        if there(): return
        page.keyboard.press("Tab")
    sys.exit("it cannot be reached by Tab")

def violations(page, source):
    page.evaluate(source + ";0")
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})")["violations"]
    return [(each["id"], each["impact"], [node["target"] for node in each["nodes"]][:3]) for each in found if each["impact"] in ("serious", "critical")]
